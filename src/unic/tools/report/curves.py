"""The records of metrics.jsonl as curves: which there are, in which panels they belong, and fewer points of long."""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
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
    curves: tuple[Curve, ...]
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


def teacher_and_token(name: str) -> tuple[str, str] | None:
    """("dino", "cls") for "loss/dino/cls"; a teacher's name may hold slashes too."""
    teacher, _, token = name.removeprefix("loss/").rpartition("/")
    return (teacher, token) if name.startswith("loss/") and teacher else None


def panels(keys: Sequence[str]) -> list[CurvePanel]:
    """What a run has written, in panels; a number that no panel is for gets one of its own.

    keys: names in metrics.jsonl.
    """
    result, used = [], {"step", "epoch"}
    for title, unit, curve_of, options in _PANELS:
        curves = tuple(curve for key in keys if key not in used and (curve := curve_of(key)))
        # Totals first: they lie on top, and head the legend.
        curves = tuple(sorted(curves, key=lambda curve: curve.teacher is not None))
        if curves:
            result.append(CurvePanel(title, unit, curves, **options))
            used |= {curve.key for curve in curves}
    rest = [key for key in keys if key not in used]
    return result + [CurvePanel(key, "", (Curve(key, key),), logarithmic="where wide") for key in rest]


def is_better_logarithmic(curves: Sequence[Series]) -> bool:
    finite = [value for _, values in curves for value in values if math.isfinite(value)]
    return bool(finite) and min(finite) > 0 and max(finite) / min(finite) > LOGARITHMIC_FROM


def _loss(key: str) -> Curve | None:
    if key in ("loss", "val/loss"):
        return Curve("training" if key == "loss" else "validation", key)
    if part := teacher_and_token(key):
        return Curve(" ".join(part), key, *part)
    return None


def _validation_loss(key: str) -> Curve | None:
    part = teacher_and_token(key.removeprefix("val/")) if key.startswith("val/") else None
    return Curve(" ".join(part), key, *part) if part else None


def _alone(name: str, label: str) -> Callable[[str], Curve | None]:
    return lambda key: Curve(label, key) if key == name else None


def _share_of_images(key: str) -> Curve | None:
    teacher = key.removeprefix("kept/")
    return Curve(teacher, key, teacher) if teacher != key else None


def _fidelity(ending: str) -> Callable[[str], Curve | None]:
    """Curves "fidelity/<teacher>/<token>/<ending>"."""

    def curve(key: str) -> Curve | None:
        middle = key.removeprefix("fidelity/").removesuffix(f"/{ending}")
        teacher, _, token = middle.rpartition("/")
        if not teacher or key != f"fidelity/{middle}/{ending}":
            return None
        return Curve(f"{teacher} {token}", key, teacher, token)

    return curve


def _rank(key: str) -> Curve | None:
    token = key.removeprefix("fidelity/rank/")
    return Curve(token, key, None, token) if token != key else None


def _knn(key: str) -> Curve | None:
    if key == "fidelity/knn":
        return Curve("student", key)
    teacher = key.removeprefix("fidelity/").removesuffix("/knn")
    return Curve(teacher, key, teacher) if key == f"fidelity/{teacher}/knn" else None


_PANELS: list[tuple[str, str, Callable[[str], Curve | None], dict[str, Any]]] = [
    (LOSS, "no unit", _loss, {"logarithmic": "where wide"}),
    ("Validation loss by teacher", "no unit", _validation_loss, {"logarithmic": "where wide"}),
    ("Explained variance of the teachers", "%, held-out images", _fidelity("explained"), {"share": True}),
    ("Cosine to the teachers", "held-out images", _fidelity("cosine"), {}),
    ("k-NN accuracy while training", "%, held-out images", _knn, {}),
    ("Effective rank of the student", "dimensions", _rank, {}),
    (IMAGES_PER_TEACHER, "%", _share_of_images, {"share": True, "zero": True}),
    ("Gradient norm", "before clipping", _alone("grad_norm", "gradient norm"), {"logarithmic": "where wide"}),
    ("Learning rate", "", _alone("lr", "learning rate"), {"logarithmic": "offered"}),
    ("Rate of the statistics", "weight of the newest batch", _alone("rate", "rate"), {"logarithmic": "offered"}),
    ("Throughput", "images per second", _alone("images_per_second", "images per second"), {"zero": True}),
]  # fmt: skip
