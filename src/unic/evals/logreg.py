"""Linear classifiers found exactly as UNIC's protocol says: scikit-learn or SGD, one trial after another.

Up to 100,000 training images: scikit-learn's L-BFGS on features as they are, C chosen in 40 trials; above: SGD
on features of length 1 (sgd.py), learning rate and weight decay chosen in 40 trials. logreg_fast.py solves the
same problems faster; this is the definition.
"""

import logging
import warnings
from collections.abc import Iterator, Sequence

import numpy as np
import torch
from jaxtyping import Float, Int64
from torch import Tensor

from unic.evals.linear.classifier import ProbeFit, ProbeProblem, Solver
from unic.evals.linear.hyperparameter_search import Params, search
from unic.evals.linear.sgd import fit_heads

log = logging.getLogger(__name__)

C_SPACE = {"C": (1e-5, 1e6)}
"""scikit-learn's C, of the sum of the losses over the images."""
SGD_SPACE = {"rate": (1e-1, 1e2), "decay": (1e-12, 1e-4)}
MAX_ITERATIONS = 2000


def solve(task: ProbeProblem) -> ProbeFit:
    """C by TPE on the held-out images, then all images with the best C; on the CPU."""
    features, labels = task.features.cpu(), task.labels.cpu()
    train, held_out = task.train.cpu(), task.held_out.cpu()

    def score(trials: Sequence[Params]) -> Iterator[float]:
        for trial in trials:
            weight, bias = scikit_learn(features[train], labels[train], task.num_classes, trial["C"])
            scores = (features[held_out] @ weight.T + bias).to(task.labels.device)
            yield task.held_out_accuracy(scores)

    best, value = search(C_SPACE, score, seed=task.seed, num_trials=task.num_trials, record=task.record)
    return ProbeFit(*scikit_learn(features, labels, task.num_classes, best["C"]), best, value)


def solve_large(task: ProbeProblem) -> ProbeFit:
    """Learning rate and weight decay by TPE, one classifier at a time, then all images with the best."""

    def score(trials: Sequence[Params]) -> Iterator[float]:
        for trial in trials:
            yield from sgd_accuracies(task, [trial])

    best, value = search(SGD_SPACE, score, seed=task.seed, num_trials=task.num_trials, record=task.record)
    return sgd_solution(task, best, value)


def scikit_learn(
    features: Float[Tensor, "N D"], labels: Int64[Tensor, " N"], num_classes: int, C: float
) -> tuple[Float[Tensor, "K D"], Float[Tensor, " K"]]:
    """One row for each class, also where scikit-learn keeps one row for two; -inf for a class without rows."""
    from sklearn.exceptions import ConvergenceWarning
    from sklearn.linear_model import LogisticRegression

    model = LogisticRegression(C=C, max_iter=MAX_ITERATIONS, tol=1e-4)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always", ConvergenceWarning)
        model.fit(features.numpy(), labels.numpy())
    if any(issubclass(warning.category, ConvergenceWarning) for warning in caught):
        log.warning("C = %.3g: scikit-learn did not converge; its last weights are used", C)
    rows, offsets = model.coef_, model.intercept_
    if len(rows) == 1:
        rows, offsets = np.concatenate([-rows, rows]) / 2, np.concatenate([-offsets, offsets]) / 2
    weight = features.new_zeros(num_classes, features.shape[1])
    bias = features.new_full((num_classes,), -torch.inf)
    present = torch.from_numpy(model.classes_)
    weight[present] = torch.from_numpy(rows).to(weight.dtype)
    bias[present] = torch.from_numpy(offsets).to(bias.dtype)
    return weight, bias


def sgd_accuracies(task: ProbeProblem, trials: Sequence[Params]) -> list[float]:
    """Held-out accuracy of some trials, trained in one pass over the features."""
    heads = fit_heads(
        task.features[task.train],
        task.labels[task.train],
        task.num_classes,
        rates=[trial["rate"] for trial in trials],
        decays=[trial["decay"] for trial in trials],
        seed=task.seed,
    )
    for trial, finite in zip(trials, heads.finite, strict=True):
        if not finite:
            log.info("rate %.3g: the loss became infinite; the trial ends there", trial["rate"])
    held_out = task.features[task.held_out]
    return [
        task.held_out_accuracy(held_out @ weight.T + bias)
        for weight, bias in zip(heads.weight, heads.bias, strict=True)
    ]


def sgd_solution(task: ProbeProblem, best: Params, value: float) -> ProbeFit:
    heads = fit_heads(
        task.features,
        task.labels,
        task.num_classes,
        rates=[best["rate"]],
        decays=[best["decay"]],
        seed=task.seed,
    )
    return ProbeFit(heads.weight[0], heads.bias[0], best, value)


EXACT = Solver("logreg", "logreg-1", "logreg-sgd-1", solve, solve_large)
