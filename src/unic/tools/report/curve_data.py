"""The records of metrics.jsonl as curves: which there are, in which panels they belong, and fewer points of long."""

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

# A record of metrics.jsonl: "step", and numbers by their names.
Metrics = Mapping[str, Any]
Series = tuple[list[int], list[float]]

# Titles of panels that figures are made of, too.
LOSS = "Loss"
IMAGES_PER_TEACHER = "Images that keep each teacher"
# An unstandardised start can be a hundred times the loss of the end; on a linear axis it would hide the rest.
LOGARITHMIC_FROM = 30.0


@dataclass(frozen=True)
class Curve:
    """One line of a panel. teacher: whose colour it has; None for what belongs to no teacher."""

    label: str
    key: str
    teacher: str | None = None
    token: str | None = None


@dataclass(frozen=True)
class CurvePanel:
    """Curves that share an axis. share: values in [0, 1] that are shown in per cent. zero: the axis begins at zero."""

    title: str
    unit: str
    curves: tuple[Curve, ...] = ()
    share: bool = False
    zero: bool = False
    logarithmic: Literal["never", "offered", "where wide"] = "never"


def series(metrics: Sequence[Metrics]) -> dict[str, Series]:
    """Steps and values of every key that has a finite value; NaN in between, which breaks the line."""
    curves: dict[str, Series] = {}
    for record in metrics:
        step = record.get("step")
        for name, value in record.items():
            if isinstance(step, int | float) and name != "step" and isinstance(value, int | float):
                steps, values = curves.setdefault(name, ([], []))
                steps.append(int(step))
                values.append(float(value) if math.isfinite(value) else math.nan)
    return {name: s for name, s in curves.items() if not all(map(math.isnan, s[1]))}


def in_order(metrics: Sequence[Metrics]) -> list[dict[str, Any]]:
    """By step, with null as NaN, for a line that goes from left to right; of a step written twice the later counts."""
    by_step: dict[int, dict[str, Any]] = {}
    for record in metrics:
        step = record.get("step")
        if isinstance(step, int | float) and math.isfinite(step):
            numbers = {name: math.nan if value is None else value for name, value in record.items()}
            by_step[int(step)] = by_step.get(int(step), {}) | numbers
    return [by_step[step] for step in sorted(by_step)]


def thinned(curve: Series, points: int) -> Series:
    """At most about `points` of a curve, with its first and last point and the least and greatest of every stretch.

    A stretch of nothing but NaN keeps one, so that the gap is still drawn.
    """
    steps, values = curve
    if len(steps) <= points:
        return curve
    stretches = max(1, (points - 2) // 2)
    chosen = {0, len(steps) - 1}
    for number in range(stretches):
        here = range(number * len(steps) // stretches, (number + 1) * len(steps) // stretches)
        finite = [index for index in here if math.isfinite(values[index])]
        chosen |= (
            {min(finite, key=values.__getitem__), max(finite, key=values.__getitem__)}
            if finite
            else {here[0]}
        )
    return [steps[index] for index in sorted(chosen)], [values[index] for index in sorted(chosen)]


def panels(keys: Sequence[str]) -> list[CurvePanel]:
    """What a run has written, in panels; a number that no panel is for gets one of its own.

    keys: names in metrics.jsonl.
    """
    result, used = [], {"step", "epoch"}
    for panel, pattern in _PANELS:
        matches = [match for key in keys if key not in used and (match := pattern.fullmatch(key))]
        # Totals first: they lie on top, and head the legend.
        curves = sorted(map(_curve, matches), key=lambda curve: curve.teacher is not None)
        if curves:
            result.append(replace(panel, curves=tuple(curves)))
            used |= {curve.key for curve in curves}
    rest = [key for key in keys if key not in used]
    return result + [CurvePanel(key, "", (Curve(key, key),), logarithmic="where wide") for key in rest]


def is_better_logarithmic(curves: Sequence[Series]) -> bool:
    finite = [value for _, values in curves for value in values if math.isfinite(value)]
    return bool(finite) and min(finite) > 0 and max(finite) / min(finite) > LOGARITHMIC_FROM


_LABELS = {
    "loss": "training", "val/loss": "validation", "fidelity/knn": "student", "grad_norm": "gradient norm",
    "lr": "learning rate", "images_per_second": "images per second",
}  # fmt: skip


def _curve(match: re.Match[str]) -> Curve:
    groups = match.groupdict()
    teacher, token = groups.get("teacher"), groups.get("token")
    label = _LABELS.get(match[0]) or " ".join(filter(None, (teacher, token))) or match[0]
    return Curve(label, match[0], teacher, token)


def _keys(pattern: str) -> re.Pattern[str]:
    """<teacher>, whose name may hold slashes too, and <token> stand for themselves."""
    return re.compile(
        pattern.replace("<teacher>", "(?P<teacher>.+)").replace("<token>", "(?P<token>[^/]+)"), re.DOTALL
    )


_PANELS = [
    (CurvePanel(LOSS, "no unit", logarithmic="where wide"), _keys("loss|val/loss|loss/<teacher>/<token>")),
    (
        CurvePanel("Validation loss by teacher", "no unit", logarithmic="where wide"),
        _keys("val/loss/<teacher>/<token>"),
    ),
    (
        CurvePanel("Explained variance of the teachers", "%, held-out images", share=True),
        _keys("fidelity/<teacher>/<token>/explained"),
    ),
    (CurvePanel("Cosine to the teachers", "held-out images"), _keys("fidelity/<teacher>/<token>/cosine")),
    (CurvePanel("k-NN accuracy while training", "%, held-out images"), _keys("fidelity/(<teacher>/)?knn")),
    (CurvePanel("Effective rank of the student", "dimensions"), _keys("fidelity/rank/<token>")),
    (CurvePanel(IMAGES_PER_TEACHER, "%", share=True, zero=True), _keys("kept/<teacher>")),
    (CurvePanel("Gradient norm", "before clipping", logarithmic="where wide"), _keys("grad_norm")),
    (CurvePanel("Learning rate", "", logarithmic="offered"), _keys("lr")),
    (CurvePanel("Rate of the statistics", "weight of the newest batch", logarithmic="offered"), _keys("rate")),
    (CurvePanel("Throughput", "images per second", zero=True), _keys("images_per_second")),
]  # fmt: skip
