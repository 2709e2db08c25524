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

from unic.evals.linear.hyperparameter_search import Params, search
from unic.evals.linear.linear_probe import Classifier, ProbeProblem, Solver
from unic.evals.linear.sgd import Heads, fit_heads

log = logging.getLogger(__name__)

C_SPACE = {"C": (1e-5, 1e6)}
"""scikit-learn's C, of the sum of the losses over the images."""
SGD_SPACE = {"rate": (1e-1, 1e2), "decay": (1e-12, 1e-4)}
MAX_ITERATIONS = 2000


def solve(problem: ProbeProblem) -> Classifier:
    """C by TPE on the held-out images, then all images with the best C; on the CPU."""
    features, labels = problem.features.cpu(), problem.labels.cpu()
    train, held_out = problem.train.cpu(), problem.held_out.cpu()

    def score(trials: Sequence[Params]) -> Iterator[float]:
        for trial in trials:
            weight, bias = scikit_learn(features[train], labels[train], problem.num_classes, trial["C"])
            scores = (features[held_out] @ weight.T + bias).to(problem.labels.device)
            yield problem.held_out_accuracy(scores)

    best, value = search(
        C_SPACE, score, seed=problem.seed, num_trials=problem.num_trials, record=problem.record
    )
    weight, bias = scikit_learn(features, labels, problem.num_classes, best["C"])
    return Classifier(weight, bias, unit_length=False, settings=best, held_out=value)


def solve_large(problem: ProbeProblem, *, at_once: int = 1) -> Classifier:
    """Learning rate and weight decay by TPE, then all images with the best.

    at_once: classifiers trained in one pass over the features; with more than one, TPE learns from results that often.
    """

    def score(trials: Sequence[Params]) -> Iterator[float]:
        for start in range(0, len(trials), at_once):
            yield from _sgd_accuracies(problem, trials[start : start + at_once])

    best, value = search(
        SGD_SPACE,
        score,
        seed=problem.seed,
        num_trials=problem.num_trials,
        record=problem.record,
        at_once=at_once,
    )
    heads = _sgd_heads(problem, [best], slice(None))
    return Classifier(heads.weight[0], heads.bias[0], unit_length=True, settings=best, held_out=value)


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


def _sgd_heads(problem: ProbeProblem, trials: Sequence[Params], rows: Int64[Tensor, " T"] | slice) -> Heads:
    """Classifiers of these rows with the settings of some trials, in one pass over the features."""
    return fit_heads(
        problem.features[rows],
        problem.labels[rows],
        problem.num_classes,
        rates=[trial["rate"] for trial in trials],
        decays=[trial["decay"] for trial in trials],
        seed=problem.seed,
    )


def _sgd_accuracies(problem: ProbeProblem, trials: Sequence[Params]) -> list[float]:
    heads = _sgd_heads(problem, trials, problem.train)
    for trial, finite in zip(trials, heads.finite, strict=True):
        if not finite:
            log.info("rate %.3g: the loss became infinite; the trial ends there", trial["rate"])
    held_out = problem.features[problem.held_out]
    return [
        problem.held_out_accuracy(held_out @ weight.T + bias)
        for weight, bias in zip(heads.weight, heads.bias, strict=True)
    ]


EXACT = Solver("logreg", "logreg-1", "logreg-sgd-1", solve, solve_large)
