"""Figures as files, for papers and slides: the radar relative to the best teacher, and the curves of runs."""

import io
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from unic.core.files import write_atomically
from unic.tools.report.charts import MAX_AXES, SHOWN, axis_labels, ranked
from unic.tools.report.curves import is_better_logarithmic, series
from unic.tools.report.loss_plots import COLOURS, plot_losses
from unic.tools.report.relative_to_teacher import Relative

Record = Mapping[str, Any]


def plot_radar(found: Relative, baselines: Sequence[str], colour_of: Mapping[str, int], path: Path) -> None:
    """Writes a PNG or an SVG: an axis for each evaluation, 100 % the best teacher; dots where a radar cannot be read.

    Encoders as they were initialised are left out: beside them all others would look the same.
    """
    from matplotlib.figure import Figure

    there = [name for name in found.values if name in baselines][:SHOWN]
    names = [*there, *ranked(found, baselines)[:SHOWN]]
    count = len(found.columns)
    is_radar = 3 <= count <= MAX_AXES
    figure = Figure(figsize=(10, 7) if is_radar else (10, 1.8 + 0.6 * count), dpi=150, layout="constrained")
    ax = figure.add_subplot(projection="polar" if is_radar else None)
    known = [v for name in names for v in found.values[name] if v is not None] + [100.0]
    spread = max(max(known) - min(known), 2.0)
    low, high = max(0.0, min(known) - 0.2 * spread), max(known) + 0.1 * spread
    for name in names:
        values = [math.nan if value is None else value for value in found.values[name]]
        is_student = name not in baselines
        style = {"color": _colour(colour_of[name]), "label": _cut(name), "zorder": 3 + is_student}
        if is_radar:
            angles = [2 * math.pi * axis / count for axis in range(count)]
            line = "-" if is_student else "--"
            ax.plot(
                [*angles, 0.0],
                [*values, values[0]],
                f"o{line}",
                linewidth=1.5 + is_student,
                markersize=4,
                **style,
            )
        else:
            ax.plot(values, range(count), "o", markersize=9, alpha=0.85, **style)
    labels = ["\n".join(map(_cut, lines)) for lines in axis_labels(found.columns)]
    if is_radar:
        _radar_axes(ax, labels, low, high)
    else:
        ax.set_yticks(range(count), [label.replace("\n", "  ") for label in labels])
        ax.set_ylim(count - 0.5, -0.5)
        ax.set_xlim(low, high)
        ax.axvline(100, color="black", linestyle=":", linewidth=1.2)
        ax.grid(axis="x", alpha=0.3)
        ax.spines[["top", "right", "left"]].set_visible(False)
    goal = "teacher" if found.of_teachers else "encoder"
    figure.suptitle(f"Per cent of the best {goal} of each evaluation", fontsize=12)
    figure.legend(loc="outside right upper", frameon=False, fontsize=11)
    _write(figure, path)


def plot_runs(metrics: Mapping[str, Sequence[Record]], colour_of: Mapping[str, int], path: Path) -> None:
    """Writes a PNG or an SVG: all losses of one run, or the loss of several. Nothing where there is nothing to draw.

    metrics: by name of the run, its records.
    colour_of: by name, as `charts.colours` gives them; the page has the same.
    """
    from matplotlib.figure import Figure

    curves = {name: series(records) for name, records in metrics.items()}
    drawable = {
        name: found
        for name, found in curves.items()
        if any(k.startswith(("loss", "val/loss", "kept/")) for k in found)
    }
    if len(drawable) == 1:
        plot_losses(metrics[next(iter(drawable))], path)
        return
    losses = {name: found["loss"] for name, found in drawable.items() if "loss" in found}
    if not losses:
        return
    figure = Figure(figsize=(12, 6), dpi=100, layout="constrained")
    ax = figure.subplots()
    for number, (name, (steps, values)) in enumerate(losses.items()):
        style = ("-", "--", ":", "-.")[max(0, colour_of[name]) // len(COLOURS) % 4]
        label = _cut(name) if number < 20 else None
        ax.plot(steps, values, style, color=_colour(colour_of[name]), label=label, linewidth=1.5)
    if is_better_logarithmic(list(losses.values())):
        ax.set_yscale("log")
    ax.set_xlabel("step", fontsize=13)
    ax.set_ylabel("training loss (no unit)", fontsize=13)
    ax.grid(alpha=0.3)
    ax.spines[["top", "right"]].set_visible(False)
    more = f"and {len(losses) - 20} more" if len(losses) > 20 else None
    figure.legend(loc="outside right upper", frameon=False, fontsize=11, title=more)
    _write(figure, path)


def _radar_axes(ax: Any, labels: Sequence[str], low: float, high: float) -> None:
    from matplotlib.ticker import MaxNLocator

    angles = [2 * math.pi * axis / len(labels) for axis in range(len(labels))]
    ax.set_theta_offset(math.pi / 2)
    ax.set_theta_direction(-1)
    ax.set_ylim(low, high)
    ax.set_xticks(angles, labels, fontsize=10)
    ax.tick_params(axis="x", pad=14)
    ax.tick_params(axis="y", labelsize=9)
    ax.yaxis.set_major_locator(MaxNLocator(6))
    ax.set_rlabel_position(180 / len(labels))
    circle = [2 * math.pi * part / 180 for part in range(181)]
    ax.plot(circle, [100.0] * len(circle), color="black", linestyle=":", linewidth=1.2)
    ax.grid(alpha=0.3)
    ax.spines["polar"].set_visible(False)


def _colour(number: int) -> str:
    return "black" if number < 0 else COLOURS[number % len(COLOURS)]


def _cut(name: str) -> str:
    """Long names would leave no room for the figure; dollar signs are mathematics to matplotlib."""
    return (name if len(name) <= 32 else f"{name[:20]}...{name[-9:]}").replace("$", r"\$")


def _write(figure: Any, path: Path) -> None:
    content = io.BytesIO()
    figure.savefig(content, format=path.suffix.removeprefix("."))
    write_atomically(path, content.getvalue())
