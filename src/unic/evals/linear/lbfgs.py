"""Softmax regression solved fast: L-BFGS in the principal axes of the features, with exact line searches.

The problem is scikit-learn's LogisticRegression: minimise C sum_n CE(W x_n + b, y_n) + |W|^2 / 2, b free.
Three changes of view, none of which moves the optimum, make it take some tens of passes over the features:
1. Axes. Features are centred (b is free, so it absorbs the mean) and turned into their principal axes; there
   the Hessian is near diag(p(1-p)) x variance + 1/(CN), which is the preconditioner. With fewer rows than
   dimensions only the N axes that the rows span remain: the optimum has no part outside them.
2. Lines. Logits are linear in W, so those along a direction cost one product, and each step of a line search
   is element-wise. Newton's method finds the minimum along the line.
3. Residuals. Logits are kept relative to the true class, and its residual is minus the sum of the others'. In float32
   1 - p would be lost long before C = 1e6.

Letters: N rows, D width, A axes, K classes.
"""

import logging
import math
from dataclasses import dataclass
from typing import NamedTuple

import torch
from jaxtyping import Float, Int64
from torch import Tensor

log = logging.getLogger(__name__)

MEMORY = 10
RESCALE = 5
"""Steps after which the preconditioner is brought up to date."""
MAX_STEPS = 2000
REACH = 50.0
"""Largest change of a logit that the first try on a line makes; where all rows are classified with certainty the
Hessian is next to nothing, and steps are out of all proportion."""
GRADIENT = 1e-4
"""Largest entry of the gradient (of the mean loss) at the end: scikit-learn's default `tol`, and its only test."""
DECREMENT = 1e-6
RELATIVE = 1e-3
"""Largest decrease that the next step promises at the end, absolute and as a part of the mean loss.

scikit-learn's test alone leaves an objective 1e-5 (C = 1e-5) to 1e-3 (C = 1) above the optimum, and up to
hundreds of times the optimum at C = 1e6.
"""


@dataclass(frozen=True)
class Axes:
    """The principal axes of some features; a rotation, or the rows' own space when there are fewer rows."""

    mean: Float[Tensor, " D"]
    axes: Float[Tensor, "D A"]

    @classmethod
    def of(cls, features: Float[Tensor, "N D"]) -> "Axes":
        mean = features.mean(0)
        centred = features - mean
        num_rows, width = centred.shape
        if num_rows < width:
            # Not the eigenvectors of X X': dividing by small singular values would make them skew.
            basis = torch.linalg.qr(centred.T).Q
            centred = centred @ basis
            return cls(mean, basis @ torch.linalg.eigh(centred.T @ centred).eigenvectors)
        return cls(mean, torch.linalg.eigh(centred.T @ centred).eigenvectors)

    def to(self, features: Float[Tensor, "M D"]) -> Float[Tensor, "M A"]:
        return (features - self.mean) @ self.axes

    def back(
        self, weight: Float[Tensor, "K A"], bias: Float[Tensor, " K"]
    ) -> tuple[Float[Tensor, "K D"], Float[Tensor, " K"]]:
        """A classifier for the features from one for their coordinates: same scores, same |W|."""
        weight = weight @ self.axes.T
        return weight, bias - weight @ self.mean


class Point(NamedTuple):
    """Weight and bias, or a step or a gradient of both."""

    weight: Float[Tensor, "K A"]
    bias: Float[Tensor, " K"]

    def dot(self, other: "Point") -> float:
        return float((self.weight * other.weight).sum() + (self.bias * other.bias).sum())

    def plus(self, other: "Point", factor: float) -> "Point":
        return Point(self.weight.add(other.weight, alpha=factor), self.bias.add(other.bias, alpha=factor))

    def times(self, other: "Point", factor: float) -> "Point":
        return Point(self.weight * other.weight * factor, self.bias * other.bias * factor)


def solve(
    features: Float[Tensor, "N A"],
    labels: Int64[Tensor, " N"],
    num_classes: int,
    C: float,
    *,
    start: Point | None = None,
    decrement: float = DECREMENT,
    relative: float = RELATIVE,
    gradient: float = GRADIENT,
) -> Point:
    """The optimum for one C, from `start` or from zero, computed in the number format of the features.

    features: in principal axes; any others work, and take longer.
    decrement, relative, gradient: the tolerances explained beside their defaults; all of them must hold.
    """
    at = start or Point(features.new_zeros(num_classes, features.shape[1]), features.new_zeros(num_classes))
    decay = 1 / (C * len(features))
    true = labels[:, None]
    variance = features.square().mean(0)
    logits = _logits(at, features, true)
    probs = logits.softmax(1)
    memory: list[tuple[Point, Point, float]] = []
    step, before = None, None
    scale = Point(torch.empty(0), torch.empty(0))
    for number in range(MAX_STEPS + 1):
        residuals = _residuals(probs, true)
        grad = _gradient(residuals, features, at, decay)
        if number % RESCALE == 0:
            scale = _preconditioner(residuals, variance, decay)
        if before is not None and step is not None:
            memory = _remember(memory, step, grad.plus(before, -1.0))
        direction = _direction(grad, memory, scale)
        descent = grad.dot(direction)
        if not descent < 0 and memory:  # rounding has spoilt the memory: go on without
            memory = []
            direction = _direction(grad, memory, scale)
            descent = grad.dot(direction)
        value = float(logits.logsumexp(1).mean() + decay / 2 * at.weight.square().sum())
        steepest = max(
            float(grad.weight.abs().max()) if grad.weight.numel() else 0.0, float(grad.bias.abs().max())
        )
        if not descent < 0 or (steepest <= gradient and -descent / 2 <= min(decrement, relative * value)):
            return at
        along = _logits(direction, features, true)
        length, probs = _line_minimum(
            logits,
            along,
            descent,
            decay * float((at.weight * direction.weight).sum()),
            decay * float(direction.weight.square().sum()),
        )
        step = Point(direction.weight * length, direction.bias * length)
        before = grad
        at = at.plus(step, 1.0)
        logits = logits.add(along, alpha=length)
    log.warning("C = %.3g: not solved after %d steps; its best weights are used", C, MAX_STEPS)
    return at


def objective(point: Point, features: Float[Tensor, "N A"], labels: Int64[Tensor, " N"], C: float) -> float:
    """Mean cross-entropy + |W|^2 / (2 C N): scikit-learn's objective over C N."""
    logits = _logits(point, features, labels[:, None])
    return float(logits.logsumexp(1).mean() + point.weight.square().sum() / (2 * C * len(features)))


def _logits(point: Point, features: Float[Tensor, "N A"], true: Int64[Tensor, "N 1"]) -> Float[Tensor, "N K"]:
    """Relative to the true class, whose own is exactly zero."""
    # Classes first: the product of the small matrix with the large one is a third faster this way round.
    logits = (point.weight @ features.T).T.contiguous().add_(point.bias)
    return logits.sub_(logits.gather(1, true))


def _residuals(probs: Float[Tensor, "N K"], true: Int64[Tensor, "N 1"]) -> Float[Tensor, "N K"]:
    """p - 1 at the true class, p elsewhere."""
    others = probs.scatter(1, true, 0.0)
    return others.scatter_(1, true, -others.sum(1, keepdim=True))


def _gradient(
    residuals: Float[Tensor, "N K"], features: Float[Tensor, "N A"], at: Point, decay: float
) -> Point:
    num_rows = len(features)
    weight = (residuals.T @ features).div_(num_rows).add_(at.weight, alpha=decay)
    return Point(weight, residuals.sum(0) / num_rows)


def _preconditioner(residuals: Float[Tensor, "N K"], variance: Float[Tensor, " A"], decay: float) -> Point:
    """One over the diagonal of the Hessian, as if a row's p(1-p) said nothing about its features."""
    sure = residuals.abs()
    curvature = (sure * (1 - sure)).mean(0).clamp_min(1e-30)
    return Point(1 / (curvature[:, None] * variance + decay), 1 / curvature)


def _remember(
    memory: list[tuple[Point, Point, float]], step: Point, change: Point
) -> list[tuple[Point, Point, float]]:
    curvature = step.dot(change)
    if not curvature > 0 or not math.isfinite(1 / curvature):
        return memory
    return [*memory, (step, change, 1 / curvature)][-MEMORY:]


def _direction(grad: Point, memory: list[tuple[Point, Point, float]], scale: Point) -> Point:
    """Minus the inverse Hessian of L-BFGS times the gradient (Nocedal and Wright, algorithm 7.4)."""
    rest = grad
    parts = []
    for step, change, rho in reversed(memory):
        part = rho * step.dot(rest)
        rest = rest.plus(change, -part)
        parts.append(part)
    size = 1.0
    if memory:
        _, change, rho = memory[-1]
        size = 1 / (rho * change.dot(change.times(scale, 1.0)))
    rest = rest.times(scale, -size)
    for (step, change, rho), part in zip(memory, reversed(parts), strict=True):
        rest = rest.plus(step, -part - rho * change.dot(rest))
    return rest


def _line_minimum(
    logits: Float[Tensor, "N K"],
    along: Float[Tensor, "N K"],
    descent: float,
    penalty_derivative: float,
    penalty_curvature: float,
) -> tuple[float, Float[Tensor, "N K"]]:
    """Length of the step to where the derivative along the line is a tenth of `descent`, and the probabilities there.

    Newton's method, kept inside the interval known to hold the minimum. The true class adds nothing: its
    logit is zero everywhere on the line.
    """
    length, low, high = min(1.0, REACH / max(float(along.abs().max()), 1e-30)), 0.0, math.inf
    for tries in range(12):
        probs = logits.add(along, alpha=length).softmax(1)
        weighted = probs * along
        mean = weighted.sum(1)
        derivative = float(mean.mean()) + penalty_derivative + length * penalty_curvature
        if abs(derivative) <= 0.1 * abs(descent) or tries == 11:
            break
        curvature = float(((weighted * along).sum(1) - mean.square()).mean()) + penalty_curvature
        low, high = (low, length) if derivative > 0 else (length, high)
        newton = length - derivative / curvature if curvature > 0 else math.inf
        halfway = (low + high) / 2 if high < math.inf else 4 * length
        length = newton if low < newton < min(high, 8 * length) else halfway
    return length, probs  # pyright: ignore[reportPossiblyUnboundVariable]
