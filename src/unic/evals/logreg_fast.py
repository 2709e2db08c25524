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
from functools import partial

import torch
from jaxtyping import Float, Int64
from torch import Tensor

from unic.evals.linear import lbfgs
from unic.evals.linear.hyperparameter_search import Params, search
from unic.evals.linear.linear_probe import Classifier, ProbeProblem, Solver
from unic.evals.logreg import C_SPACE, solve_large

AT_ONCE = 10
"""SGD heads trained in one pass."""


class SolutionPath:
    """Solutions of one problem for several C, each found from those of the nearest C."""

    def __init__(self, features: Float[Tensor, "N A"], labels: Int64[Tensor, " N"], num_classes: int):
        self._problem = (features, labels, num_classes)
        self._known: list[tuple[float, lbfgs.Point]] = []

    def at(self, C: float) -> lbfgs.Point:
        solution = lbfgs.solve(*self._problem, _for_each_row(C, self._problem[2]), start=self.near(C))
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


def solve(problem: ProbeProblem) -> Classifier:
    """C by TPE on the held-out images, then all images with the best C, from the solution on a part of them."""
    axes = lbfgs.Axes.of(problem.features)
    features = axes.to(problem.features)
    train, held_out = features[problem.train], features[problem.held_out]
    path = SolutionPath(train, problem.labels[problem.train], problem.num_classes)

    def score(trials: Sequence[Params]) -> list[float]:
        values = {}
        for C in sorted(trial["C"] for trial in trials):
            point = path.at(C)
            values[C] = problem.held_out_accuracy(held_out @ point.weight.T + point.bias)
        return [values[trial["C"]] for trial in trials]

    best, value = search(
        C_SPACE, score, seed=problem.seed, num_trials=problem.num_trials, record=problem.record
    )
    C = _for_each_row(best["C"], problem.num_classes)
    point = lbfgs.solve(features, problem.labels, problem.num_classes, C, start=path.near(best["C"]))
    weight, bias = axes.back(*point)
    return Classifier(weight, bias, unit_length=False, settings=best, held_out=value)


def _for_each_row(C: float, num_classes: int) -> float:
    """scikit-learn keeps one row for two classes; two rows share its penalty and so halve it."""
    return C / 2 if num_classes == 2 else C


FAST = Solver(
    "logreg-fast", "logreg-fast-1", "logreg-fast-sgd-1", solve, partial(solve_large, at_once=AT_ONCE)
)
