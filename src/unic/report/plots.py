"""Curves of a run, from the records of metrics.jsonl: losses, and how often each teacher was kept."""

import io
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from unic.errors import DataError
from unic.run import write_atomically

# Okabe and Ito's colours, which colour-blind readers can tell apart; black is for what belongs to no teacher.
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#F0E442")
STYLES = {"cls": "-", "patches": "--"}
# An unstandardised start can be a hundred times the loss of the end; on a linear axis it would hide the rest.
LOGARITHMIC_FROM = 30.0

Record = Mapping[str, Any]
Series = tuple[list[int], list[float]]


def plot_losses(metrics: Sequence[Record], path: Path) -> None:
    """Writes a PNG: the losses over the steps above, the share of images that keep each teacher below.

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
    png = io.BytesIO()
    figure.savefig(png, format="png")
    write_atomically(path, png.getvalue())


def _series(metrics: Sequence[Record]) -> dict[str, Series]:
    """Steps and values of every key that has a finite value; NaN in between, which breaks the line."""
    series: dict[str, Series] = {}
    for record in metrics:
        step = record.get("step")
        for name, value in record.items():
            if step is not None and name != "step" and isinstance(value, int | float):
                steps, values = series.setdefault(name, ([], []))
                steps.append(step)
                values.append(float(value) if math.isfinite(value) else math.nan)
    return {name: s for name, s in series.items() if not all(map(math.isnan, s[1]))}


def _teacher_and_token(name: str) -> tuple[str, str] | None:
    """("dino", "cls") for "loss/dino/cls"; a teacher's name may hold slashes too."""
    teacher, _, token = name.removeprefix("loss/").rpartition("/")
    return (teacher, token) if name.startswith("loss/") and teacher else None


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
