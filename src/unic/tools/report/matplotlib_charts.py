"""Charts as files, PNG or SVG, for papers and slides: matplotlib draws the same values as page.js."""

import io
import math
import textwrap
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from unic.core.errors import DataError
from unic.core.files import write_atomically
from unic.tools.report.chart_data import COLOURS, Chart, ChartSeries, comparison_charts, run_charts
from unic.tools.report.curve_data import IMAGES_PER_TEACHER, LOSS, Metrics, panels, series

_LINE_STYLES = ("-", "--", ":", "-.")
_HEIGHTS = {LOSS: 5.0, IMAGES_PER_TEACHER: 3.0}
MAX_NAMES = 20
"""Of a legend."""


def plot_losses(metrics: Sequence[Metrics], path: Path) -> None:
    """Writes the losses over the steps above, the share of images that keep each teacher below.

    metrics: records with "step" and any of "loss", "val/loss", "loss/<teacher>/<token>", "kept/<teacher>" (a
      share in [0, 1]). Values that are missing or not finite leave a gap or are passed over.
    Raises DataError where no record has a loss at a step.
    """
    curves = [curve for panel in panels(list(series(metrics))) for curve in panel.curves]
    teachers = dict.fromkeys(curve.teacher for curve in curves if curve.teacher)
    charts = loss_charts({"": metrics}, {teacher: number for number, teacher in enumerate(teachers)})
    if not charts:
        raise DataError(f"{path}: nothing to draw; none of {len(metrics)} records has a loss at a step")
    plot_charts(charts, path)


def loss_charts(runs: Mapping[str, Sequence[Metrics]], colour_of: Mapping[str, int]) -> list[Chart]:
    """Of one run, all its losses and how many images keep each teacher; of several, their losses in one chart.

    runs: metrics by the name of the run; those without a loss are passed over.
    """
    of_runs = {
        run: [chart for chart in run_charts(metrics, colour_of) if chart.title in _HEIGHTS]
        for run, metrics in runs.items()
    }
    of_runs = {run: charts for run, charts in of_runs.items() if charts}
    if len(of_runs) == 1:
        (charts,) = of_runs.values()
        return charts
    return [chart for chart in comparison_charts(runs, colour_of) if chart.title == LOSS]


def plot_charts(charts: Sequence[Chart], path: Path) -> None:
    """Writes charts of curves below each other, with one axis of steps."""
    # The object interface: nothing global, no window, safe in any thread.
    from matplotlib.figure import Figure

    heights = [_HEIGHTS[chart.title] for chart in charts]
    figure = Figure(figsize=(12, sum(heights)), dpi=100, layout="constrained")
    axes = figure.subplots(len(charts), 1, sharex=True, squeeze=False, height_ratios=heights)[:, 0]
    for ax, chart in zip(axes, charts, strict=True):
        for number, line in enumerate(chart.series):
            _draw_line(ax, line, label=_shorten(line.name) if number < MAX_NAMES else None)
        if chart.log:
            ax.set_yscale("log")
        elif chart.zero:
            ax.set_ylim(0, 103 if chart.unit == "%" else None)
        words = f"{chart.title} ({chart.unit.partition(',')[0]})"
        ax.set_ylabel(textwrap.fill(words, 22), fontsize=15)
        ax.grid(alpha=0.3)
        ax.spines[["top", "right"]].set_visible(False)
        ax.tick_params(labelsize=13)
        ax.xaxis.get_major_locator().set_params(integer=True)
        more = f"and {len(chart.series) - MAX_NAMES} more" if len(chart.series) > MAX_NAMES else None
        ax.legend(loc="upper left", bbox_to_anchor=(1.01, 1.0), fontsize=13, frameon=False, title=more)
    axes[-1].set_xlabel("step", fontsize=15)
    _write(figure, path)


def plot_relative(chart: Chart, path: Path) -> None:
    """Writes a chart of per cent of the best teacher, with the encoders that the page shows at first."""
    from matplotlib.figure import Figure

    visible = [encoder for encoder in chart.series if not encoder.off]
    count, is_radar = len(chart.axes), chart.kind == "radar"
    figure = Figure(figsize=(10, 7) if is_radar else (10, 1.8 + 0.6 * count), dpi=150, layout="constrained")
    ax = figure.add_subplot(projection="polar" if is_radar else None)
    percents = [percent for encoder in visible for percent in encoder.y if percent is not None] + [100.0]
    spread = max(max(percents) - min(percents), 2.0)
    low, high = max(0.0, min(percents) - 0.2 * spread), max(percents) + 0.1 * spread
    for encoder in visible:
        values = _with_nan(encoder.y)
        style = {"color": _colour(encoder), "label": _shorten(encoder.name), "zorder": 3 + encoder.strong}
        if is_radar:
            style |= {"linestyle": _LINE_STYLES[encoder.dash], "linewidth": 1.5 + encoder.strong}
            ax.plot([*_angles(count), 0.0], [*values, values[0]], marker="o", markersize=4, **style)
        else:
            ax.plot(values, range(count), "o", markersize=9, alpha=0.85, **style)
    labels = ["\n".join(map(_shorten, axis.label)) for axis in chart.axes]
    if is_radar:
        _radar_axes(ax, labels, low, high)
    else:
        ax.set_yticks(range(count), [label.replace("\n", "  ") for label in labels])
        ax.set_ylim(count - 0.5, -0.5)
        ax.set_xlim(low, high)
        ax.axvline(100, color="black", linestyle=":", linewidth=1.2)
        ax.grid(axis="x", alpha=0.3)
        ax.spines[["top", "right", "left"]].set_visible(False)
    figure.suptitle(chart.title, fontsize=12)
    figure.legend(loc="outside right upper", frameon=False, fontsize=11)
    _write(figure, path)


def _draw_line(ax: Any, line: ChartSeries, label: str | None) -> None:
    """With marks where there are so few values that a line might not be seen."""
    ax.plot(
        line.x,
        _with_nan(line.y),
        color=_colour(line),
        label=label,
        linestyle=_LINE_STYLES[line.dash],
        linewidth=2.5 if line.strong else 1.5,
        marker="o" if line.dots or len(line.x) < 20 else None,
        markersize=6 if line.dots else 4,
        markerfacecolor="white" if line.hollow else None,
        zorder=4 if line.dots else 3 if line.strong else 2,
    )


def _radar_axes(ax: Any, labels: Sequence[str], low: float, high: float) -> None:
    from matplotlib.ticker import MaxNLocator

    ax.set_theta_offset(math.pi / 2)
    ax.set_theta_direction(-1)
    ax.set_ylim(low, high)
    ax.set_xticks(_angles(len(labels)), labels, fontsize=10)
    ax.tick_params(axis="x", pad=14)
    ax.tick_params(axis="y", labelsize=9)
    ax.yaxis.set_major_locator(MaxNLocator(6))
    ax.set_rlabel_position(180 / len(labels))
    circle = _angles(180)
    ax.plot([*circle, 2 * math.pi], [100.0] * 181, color="black", linestyle=":", linewidth=1.2)
    ax.grid(alpha=0.3)
    ax.spines["polar"].set_visible(False)


def _angles(count: int) -> list[float]:
    return [2 * math.pi * number / count for number in range(count)]


def _with_nan(values: Sequence[float | None]) -> list[float]:
    return [math.nan if value is None else value for value in values]


def _colour(of: ChartSeries) -> str:
    return "black" if of.colour < 0 else COLOURS[of.colour % len(COLOURS)]


def _shorten(name: str) -> str:
    """Long names would leave no room for the figure; dollar signs are mathematics to matplotlib."""
    return (name if len(name) <= 32 else f"{name[:20]}...{name[-9:]}").replace("$", r"\$")


def _write(figure: Any, path: Path) -> None:
    content = io.BytesIO()
    figure.savefig(content, format=path.suffix.removeprefix("."))
    write_atomically(path, content.getvalue())
