"""Curves of a run, from the records of metrics.jsonl: losses, and how often each teacher was kept."""

import io
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from unic.core.errors import DataError
from unic.core.files import write_atomically
from unic.tools.report.curves import LOGARITHMIC_FROM, Record, Series
from unic.tools.report.curves import series as _series
from unic.tools.report.curves import teacher_and_token as _teacher_and_token

# Okabe and Ito's colours, which colour-blind readers can tell apart; black is for what belongs to no teacher.
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#F0E442")
STYLES = {"cls": "-", "patches": "--"}


def plot_losses(metrics: Sequence[Record], path: Path) -> None:
    """Writes a PNG or an SVG: the losses over the steps above, the share of images that keep each teacher below.

    metrics: records with "step" and any of "loss", "val/loss", "loss/<teacher>/<token>", "kept/<teacher>" (a
      share in [0, 1]). Values that are missing or not finite leave a gap or are passed over.
    """
    # The object interface: nothing global, no window, safe in any thread.
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    series = _series(metrics)
    losses = {n: s for n, s in series.items() if n in ("loss", "val/loss") or _teacher_and_token(n)}
    kept = {name.removeprefix("kept/"): s for name, s in series.items() if name.startswith("kept/")}
    if not losses and not kept:
        raise DataError(f"{path}: nothing to draw; none of {len(metrics)} records has a loss at a step")
    teachers = list(dict.fromkeys([*(part[0] for part in map(_teacher_and_token, losses) if part), *kept]))
    colours = {teacher: COLOURS[i % len(COLOURS)] for i, teacher in enumerate(teachers)}

    panels = [(_draw_losses, losses, 5.0), (_draw_kept, kept, 3.0)]
    panels = [(draw, curves, height) for draw, curves, height in panels if curves]
    heights = [height for _, _, height in panels]
    figure = Figure(figsize=(12, sum(heights)), dpi=100, layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.subplots(len(panels), 1, sharex=True, squeeze=False, height_ratios=heights)[:, 0]
    for ax, (draw, curves, _) in zip(axes, panels, strict=True):
        draw(ax, curves, colours)
        ax.grid(alpha=0.3)
        ax.spines[["top", "right"]].set_visible(False)
        ax.tick_params(labelsize=13)
        ax.xaxis.get_major_locator().set_params(integer=True)
        ax.legend(loc="upper left", bbox_to_anchor=(1.01, 1.0), fontsize=13, frameon=False)
    axes[-1].set_xlabel("step", fontsize=15)
    content = io.BytesIO()
    figure.savefig(content, format=path.suffix.removeprefix("."))
    write_atomically(path, content.getvalue())


def _draw_losses(ax: Any, losses: Mapping[str, Series], colours: Mapping[str, str]) -> None:
    for name, (steps, values) in losses.items():
        if name == "loss":
            _line(ax, steps, values, label="training", color="black", linewidth=2.5, zorder=3)
        elif name == "val/loss":
            # Rare points: always with marks.
            ax.plot(steps, values, "o:", label="validation", color="black", markerfacecolor="white", zorder=4)
        elif part := _teacher_and_token(name):
            teacher, token = part
            style = STYLES.get(token, ":")
            _line(ax, steps, values, label=f"{teacher} {token}", color=colours[teacher], linestyle=style)
    ax.set_ylabel("loss (no unit)", fontsize=15)
    finite = [value for _, values in losses.values() for value in values if math.isfinite(value)]
    if finite and min(finite) > 0 and max(finite) / min(finite) > LOGARITHMIC_FROM:
        ax.set_yscale("log")
    elif finite and min(finite) >= 0:
        ax.set_ylim(bottom=0)


def _draw_kept(ax: Any, kept: Mapping[str, Series], colours: Mapping[str, str]) -> None:
    for teacher, (steps, values) in kept.items():
        _line(ax, steps, [100 * value for value in values], label=teacher, color=colours[teacher])
    ax.set_ylabel("images that keep\nthe teacher (%)", fontsize=15)
    ax.set_ylim(0, 103)


def _line(ax: Any, steps: list[int], values: list[float], **style: Any) -> None:
    """A line; with marks where there are so few values that a line might not be seen."""
    ax.plot(steps, values, marker="o" if len(values) < 20 else None, markersize=4, **style)
