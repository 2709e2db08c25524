"""Charts as values: which lines there are, their colours and their axes. page.js and matplotlib_charts.py draw them."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Literal

from unic.tools.report.comparison import UNTRAINED, Column, Comparison
from unic.tools.report.curve_data import (
    CurvePanel,
    Metrics,
    Series,
    is_better_logarithmic,
    panels,
    series,
    thinned,
)

# Okabe and Ito's colours, which colour-blind readers can tell apart; black is for what belongs to no teacher.
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#F0E442")
TEXT_COLOUR = -1
# The number of a style of line.
SOLID, DASHED, DOTTED, DASH_DOTTED = 0, 1, 2, 3
POINTS = 600
"""Of one curve; more than a screen can show."""
TOTAL_POINTS = 120_000
"""Of all curves of a page, about 2 MB."""
FEWEST_POINTS = 16
"""Fewer points than this say nothing about a curve; it is then left out."""
MAX_AXES = 24
"""Of a radar; more labels than these cannot be read."""
SHOWN = 8
"""Students, or runs, that are visible before anyone asks for more."""
# Curves that tell runs apart, in the order of their charts.
_COMPARED = ("loss", "val/loss", "fidelity/knn", "grad_norm", "images_per_second")


@dataclass(frozen=True, kw_only=True)
class ChartSeries:
    """One line or outline.

    x: steps, for curves. y: a value for each step, or per cent for each axis; None is a gap.
    colour: number in COLOURS, which begin again after the last one; TEXT_COLOUR is black.
    dash: SOLID, DASHED, DOTTED or DASH_DOTTED. strong: drawn thicker. off: hidden until asked for.
    dots, hollow: every point has a mark, and the mark is not filled.
    text: the values as words, for each axis. mean: their mean, as words.
    """

    name: str
    colour: int
    x: Sequence[int] = ()
    y: Sequence[float | None]
    dash: int = SOLID
    strong: bool = False
    off: bool = False
    dots: bool = False
    hollow: bool = False
    text: Sequence[str] = ()
    mean: str | None = None


@dataclass(frozen=True, kw_only=True)
class ChartAxis:
    """label: its lines. gain: of the only student over the best teacher, as words."""

    label: Sequence[str]
    gain: str | None = None


@dataclass(frozen=True, kw_only=True)
class Chart:
    """lines: curves over steps. radar, dots: a value on each of `axes`, as outlines or as dots on lines.

    log: the vertical axis is logarithmic; may_be_log: it can be switched. zero: it begins at zero.
    gaps: number of values that are not finite.
    """

    kind: Literal["lines", "radar", "dots"]
    title: str
    unit: str = ""
    series: Sequence[ChartSeries]
    axes: Sequence[ChartAxis] = ()
    log: bool = False
    may_be_log: bool = False
    zero: bool = False
    gaps: int = 0


def colours(teachers: Sequence[str], others: Sequence[str]) -> dict[str, int]:
    """A number of a colour for every name on the page. A single student is black, so that the teachers have colours."""
    trained = [n for n in dict.fromkeys(others) if n not in teachers and not n.endswith(UNTRAINED)]
    alone = trained if len(trained) == 1 else []
    coloured = [name for name in dict.fromkeys([*teachers, *trained, *others]) if name not in alone]
    return {name: number for number, name in enumerate(coloured)} | dict.fromkeys(alone, TEXT_COLOUR)


def relative_chart(comparison: Comparison, colour_of: Mapping[str, int]) -> Chart | None:
    """Every encoder in per cent of the best teacher, evaluation by evaluation: the figure by which UNIC is known.

    None where there is nothing to compare: no evaluation, or one encoder alone.
    """
    relative = comparison.relative()
    if not relative.columns or len(relative.rows) < 2:
        return None
    ranked = relative.ranked_students()
    visible = {*relative.baselines[:SHOWN], *ranked[:SHOWN]}
    others = [model for model in relative.rows if model not in ranked]
    students = [model for model in ranked if model in visible]
    gains = relative.percents(students[0]) if len(students) == 1 else [None] * len(relative.columns)
    axes = [
        ChartAxis(label=_axis_label(relative, column), gain=_gain(percent))
        for column, percent in zip(relative.columns, gains, strict=True)
    ]
    return Chart(
        kind="radar" if 3 <= len(axes) <= MAX_AXES else "dots",
        title=f"Per cent of the best {'teacher' if relative.baselines else 'encoder'} of each evaluation",
        axes=axes,
        series=[
            _relative_series(relative, model, colour_of, off=model not in visible)
            for model in [*ranked, *others]
        ],
    )


def _relative_series(
    relative: Comparison, model: str, colour_of: Mapping[str, int], *, off: bool
) -> ChartSeries:
    is_baseline, is_untrained = model in relative.baselines, model.endswith(UNTRAINED)
    mean = relative.mean_percent(model)
    texts = [
        f"{cell.number()} {column.unit}"
        for cell, column in zip(relative.rows[model], relative.columns, strict=True)
    ]
    return ChartSeries(
        name=model,
        colour=colour_of.get(model, TEXT_COLOUR),
        dash=DASHED if is_baseline else DOTTED if is_untrained else SOLID,
        strong=not is_baseline and not is_untrained,
        off=off,
        mean=None if mean is None else f"{'mean ' if len(texts) > 1 else ''}{mean:.1f} %",
        y=[_rounded(percent) for percent in relative.percents(model)],
        text=texts,
    )


def _gain(percent: float | None) -> str | None:
    return None if percent is None else f"{percent - 100:+.1f} %".replace("-", "\u2212")


def _axis_label(relative: Comparison, column: Column) -> list[str]:
    """The data set, the metric with an arrow where less is better, what else tells it apart."""
    dataset, metric, unit, *rest = relative.header(column)
    return [dataset, metric + unit.removeprefix(column.unit), *rest]


def points_of_each(runs: Sequence[Sequence[Metrics]]) -> int:
    """How many points each curve of a page may have; fewer than FEWEST_POINTS: only comparisons are drawn."""
    count = sum(len(series(metrics)) for metrics in runs) + len(_COMPARED) * len(runs)
    return min(POINTS, TOTAL_POINTS // max(1, count))


def run_charts(metrics: Sequence[Metrics], colour_of: Mapping[str, int], points: int = POINTS) -> list[Chart]:
    """One chart for each panel of a run's metrics."""
    curves = series(metrics)
    charts = []
    for panel in panels(list(curves)):
        lines = []
        for number, curve in enumerate(panel.curves):
            # Tokens of the student itself have no teacher, and still need two colours.
            own = number if curve.token else TEXT_COLOUR
            is_validation = curve.key == "val/loss"
            x, y = _coordinates(curves[curve.key], panel, points)
            lines.append(
                ChartSeries(
                    name=curve.label,
                    x=x,
                    y=y,
                    colour=colour_of.get(curve.teacher, number) if curve.teacher else own,
                    dash=DOTTED if is_validation else DASHED if curve.token == "patches" else SOLID,
                    strong=curve.teacher is None and len(panel.curves) > 1 and not is_validation,
                    dots=is_validation,
                    hollow=is_validation,
                )
            )
        charts.append(_line_chart(panel, [curves[curve.key] for curve in panel.curves], lines))
    return charts


def comparison_charts(
    runs: Mapping[str, Sequence[Metrics]], colour_of: Mapping[str, int], points: int = POINTS
) -> list[Chart]:
    """The same curve of several runs in one chart, where at least two of them have it.

    runs: metrics by the name of the run.
    """
    curves_of = {run: series(metrics) for run, metrics in runs.items()}
    charts = []
    for key in _COMPARED:
        of_runs = {run: curves[key] for run, curves in curves_of.items() if key in curves}
        if len(of_runs) < 2:
            continue
        (panel,) = panels([key])
        if key == "val/loss":
            panel = replace(panel, title="Validation loss")
        lines = []
        for number, (run, curve) in enumerate(of_runs.items()):
            x, y = _coordinates(curve, panel, points)
            colour = colour_of.get(run, TEXT_COLOUR)
            dash = max(0, colour) // len(COLOURS) % 4
            lines.append(ChartSeries(name=run, x=x, y=y, colour=colour, dash=dash, off=number >= SHOWN))
        charts.append(_line_chart(panel, list(of_runs.values()), lines))
    return charts


def _line_chart(panel: CurvePanel, curves: Sequence[Series], lines: Sequence[ChartSeries]) -> Chart:
    return Chart(
        kind="lines",
        title=panel.title,
        unit=panel.unit,
        series=lines,
        log=panel.logarithmic == "where wide" and is_better_logarithmic(curves),
        may_be_log=panel.logarithmic != "never"
        and any(value > 0 for _, values in curves for value in values),
        zero=panel.zero,
        gaps=sum(not math.isfinite(value) for _, values in curves for value in values),
    )


def _coordinates(curve: Series, panel: CurvePanel, points: int) -> tuple[list[int], list[float | None]]:
    steps, values = thinned(curve, points)
    factor = 100 if panel.share else 1
    return steps, [_rounded(factor * value) for value in values]


def _rounded(value: float | None) -> float | None:
    """Five digits, which no screen shows all of; None for what is not finite."""
    return float(f"{value:.5g}") if value is not None and math.isfinite(value) else None
