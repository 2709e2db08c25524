"""The charts of the page as data: page.js draws them."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

from unic.tools.report.curves import CurvePanel, Series, is_better_logarithmic, panels, series, thinned
from unic.tools.report.inputs import Run
from unic.tools.report.relative_to_teacher import UNTRAINED, Relative
from unic.tools.report.results_table import Column, header

Chart = dict[str, Any]

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
# The number of a style of line in page.js.
SOLID, DASHED, DOTTED = 0, 1, 2
TEXT_COLOUR = -1
# Curves that tell runs apart, in the order of their charts.
_COMPARED = ("loss", "val/loss", "fidelity/knn", "grad_norm", "images_per_second")


def colours(teachers: Sequence[str], others: Sequence[str]) -> dict[str, int]:
    """A number of a colour for every name on the page. A single student is black, so that the teachers have colours."""
    trained = [n for n in dict.fromkeys(others) if n not in teachers and not n.endswith(UNTRAINED)]
    alone = trained if len(trained) == 1 else []
    coloured = [name for name in dict.fromkeys([*teachers, *trained, *others]) if name not in alone]
    return {name: number for number, name in enumerate(coloured)} | dict.fromkeys(alone, TEXT_COLOUR)


def radar_chart(found: Relative, baselines: Sequence[str], colour_of: Mapping[str, int]) -> Chart | None:
    """None where there is nothing to compare: no evaluation, or one encoder alone."""
    if not found.columns or len(found.values) < 2:
        return None
    order = ranked(found, baselines)
    shown = {*[name for name in found.values if name in baselines][:SHOWN], *order[:SHOWN]}
    students = [name for name in order if name in shown]
    chart_series = []
    for name in [*order, *(name for name in found.values if name not in order)]:
        is_baseline, is_untrained, mean = name in baselines, name.endswith(UNTRAINED), found.mean(name)
        texts = [
            f"{cell.number()} {c.unit}" for cell, c in zip(found.cells[name], found.columns, strict=True)
        ]
        chart_series.append(
            {
                "name": name,
                "colour": colour_of.get(name, TEXT_COLOUR),
                "dash": DASHED if is_baseline else DOTTED if is_untrained else SOLID,
                "strong": not is_baseline and not is_untrained,
                "off": name not in shown,
                "mean": None if mean is None else f"{'mean ' * (len(texts) > 1)}{mean:.1f} %",
                "y": [_rounded(value) for value in found.values[name]],
                "text": texts,
            }
        )
    axes: list[Chart] = [{"label": lines} for lines in axis_labels(found.columns)]
    if len(students) == 1:
        for axis, value in zip(axes, found.values[students[0]], strict=True):
            axis["gain"] = None if value is None else f"{value - 100:+.1f} %".replace("-", "\u2212")
    is_radar = 3 <= len(axes) <= MAX_AXES
    title = f"Per cent of the best {'teacher' if found.of_teachers else 'encoder'} of each evaluation"
    return {"kind": "radar" if is_radar else "dots", "title": title, "axes": axes, "series": chart_series}


def axis_labels(columns: Sequence[Column]) -> list[list[str]]:
    """Lines for each axis: the data set, the metric with an arrow where less is better, what else tells it apart."""
    labels = []
    for column in columns:
        dataset, what, unit, *rest = header(column, columns)
        labels.append([dataset, what + unit.removeprefix(column.unit), *rest])
    return labels


def ranked(found: Relative, baselines: Sequence[str]) -> list[str]:
    """Trained students, those with the greatest mean first; those without one last."""
    students = [name for name in found.values if name not in baselines and not name.endswith(UNTRAINED)]
    return sorted(students, key=lambda name: -(found.mean(name) or 0.0))


def points_of_each(runs: Sequence[Run]) -> int:
    """How many points each curve of a page may have; fewer than FEWEST_POINTS: only comparisons are drawn."""
    count = sum(len(series(run.metrics)) for run in runs) + len(_COMPARED) * len(runs)
    return min(POINTS, TOTAL_POINTS // max(1, count))


def run_charts(run: Run, colour_of: Mapping[str, int], points: int) -> list[Chart]:
    """One chart for each panel of a run's metrics."""
    found = series(run.metrics)
    return [_panel_chart(panel, found, colour_of, points) for panel in panels(list(found))]


def comparison_charts(runs: Sequence[Run], colour_of: Mapping[str, int], points: int) -> list[Chart]:
    """The same curve of several runs in one chart, where at least two of them have it."""
    charts = []
    everything = {run.name: series(run.metrics) for run in runs}
    for key in _COMPARED:
        found = {name: curves[key] for name, curves in everything.items() if key in curves}
        if len(found) < 2:
            continue
        panel = next(panel for panel in panels([key]))
        chart = _chart(panel, list(found.values()))
        chart["title"] = panel.title if key != "val/loss" else "Validation loss"
        chart["series"] = [
            _line(name, found[name], panel, points)
            | {
                "colour": colour_of.get(name, TEXT_COLOUR),
                "dash": max(0, colour_of.get(name, 0)) // 7 % 4,
                "off": number >= SHOWN,
            }
            for number, name in enumerate(found)
        ]
        charts.append(chart)
    return charts


def _panel_chart(
    panel: CurvePanel, found: Mapping[str, Series], colour_of: Mapping[str, int], points: int
) -> Chart:
    chart = _chart(panel, [found[curve.key] for curve in panel.curves])
    chart["series"] = []
    for number, curve in enumerate(panel.curves):
        # Tokens of the student itself have no teacher, and still need two colours.
        own = number if curve.token and not curve.teacher else TEXT_COLOUR
        line = _line(curve.label, found[curve.key], panel, points)
        line["colour"] = colour_of.get(curve.teacher, number) if curve.teacher else own
        line["dash"] = DASHED if curve.token == "patches" else SOLID
        line["strong"] = curve.teacher is None and len(panel.curves) > 1
        if curve.key == "val/loss":
            line |= {"dash": DOTTED, "dots": True, "hollow": True, "strong": False}
        chart["series"].append(line)
    return chart


def _chart(panel: CurvePanel, curves: Sequence[Series]) -> Chart:
    positive = any(value > 0 for _, values in curves for value in values)
    return {
        "kind": "lines",
        "title": panel.title,
        "unit": panel.unit,
        "log": panel.logarithmic == "where wide" and is_better_logarithmic(curves),
        "may_be_log": panel.logarithmic != "never" and positive,
        "zero": panel.title in ("Images that keep each teacher", "Throughput"),
        "gaps": sum(not math.isfinite(value) for _, values in curves for value in values),
    }


def _line(name: str, curve: Series, panel: CurvePanel, points: int) -> Chart:
    steps, values = thinned(curve, points)
    factor = 100 if panel.share else 1
    return {"name": name, "x": steps, "y": [_rounded(factor * value) for value in values]}


def _rounded(value: float | None) -> float | None:
    """Five digits, which no screen shows all of; None for what is not finite."""
    return float(f"{value:.5g}") if value is not None and math.isfinite(value) else None
