"""The problems of logreg.py, solved together: the same trials, to at least the same optimum.

The search is the same, to the trial: Optuna's TPE over the same range with the same seed, so where the held-out
accuracies agree, C is the same number. What differs is the solver (lbfgs.py): one change of axes serves all
trials and the last fit, the ten random trials are solved from the smallest C to the largest, and every later
one starts between the solutions of the nearest C below and above.
SGD heads (sgd.py) are trained ten at a time, which lets Optuna learn from results only every ten trials.
"""

import bisect
import math
from collections.abc import Sequence

import torch
from jaxtyping import Float, Int64
from torch import Tensor

from unic.evals.linear import lbfgs
from unic.evals.linear.classifier import ProbeFit, ProbeProblem, Solver
from unic.evals.linear.hyperparameter_search import Params, search
from unic.evals.logreg import C_SPACE, SGD_SPACE, sgd_accuracies, sgd_solution

AT_ONCE = 10
"""SGD heads trained in one pass."""


class SolutionPath:
    """Solutions of one problem for several C, each found from those of the nearest C."""

    def __init__(self, features: Float[Tensor, "N A"], labels: Int64[Tensor, " N"], num_classes: int):
        self._problem = (features, labels, num_classes)
        self._known: list[tuple[float, lbfgs.Point]] = []

    def at(self, C: float) -> lbfgs.Point:
        # scikit-learn keeps one row for two classes; two rows share its penalty and so halve it.
        per_row = C / 2 if self._problem[2] == 2 else C
        solution = lbfgs.solve(*self._problem, per_row, start=self.near(C))
        bisect.insort(self._known, (math.log(C), solution), key=lambda known: known[0])
        return solution

    def near(self, C: float) -> lbfgs.Point | None:
        """Interpolated in log C between the nearest solutions; the nearest one at an end, None without any."""
        place = math.log(C)
        i = bisect.bisect_left(self._known, place, key=lambda known: known[0])
        around = self._known[max(i - 1, 0) : i + 1]
        if len(around) < 2 or i == 0:
            return around[0][1] if around else None
        (low, below), (high, above) = around
        part = (place - low) / (high - low) if high > low else 0.0
        return lbfgs.Point(
            torch.lerp(below.weight, above.weight, part), torch.lerp(below.bias, above.bias, part)
        )


def solve(task: ProbeProblem) -> ProbeFit:
    """C by TPE on the held-out images, then all images with the best C, from the solution on a part of them."""
    axes = lbfgs.Axes.of(task.features)
    features = axes.to(task.features)
    train, held_out = features[task.train], features[task.held_out]
    path = SolutionPath(train, task.labels[task.train], task.num_classes)

    def score(trials: Sequence[Params]) -> list[float]:
        values = {}
        for C in sorted(trial["C"] for trial in trials):
            point = path.at(C)
            values[C] = task.held_out_accuracy(held_out @ point.weight.T + point.bias)
        return [values[trial["C"]] for trial in trials]

    best, value = search(C_SPACE, score, seed=task.seed, num_trials=task.num_trials, record=task.record)
    per_row = best["C"] / 2 if task.num_classes == 2 else best["C"]
    start = path.near(best["C"])
    point = lbfgs.solve(features, task.labels, task.num_classes, per_row, start=start)
    return ProbeFit(*axes.back(point.weight, point.bias), best, value)


def solve_large(task: ProbeProblem) -> ProbeFit:
    """Learning rate and weight decay by TPE, ten trials at a time, then all images with the best."""

    def score(trials: Sequence[Params]) -> list[float]:
        return sgd_accuracies(task, trials)

    best, value = search(
        SGD_SPACE,
        score,
        seed=task.seed,
        num_trials=task.num_trials,
        record=task.record,
        at_once=AT_ONCE,
    )
    return sgd_solution(task, best, value)


FAST = Solver("logreg-fast", "logreg-fast-1", "logreg-fast-sgd-1", solve, solve_large)
