"""A table of square panels as one PNG: a row for each picture, a column for each encoder.

Letters: h w grid of patches (or pixels of a photograph).
"""

import io
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Float, UInt8

DOTS = 100  # an inch
SIDE = 288  # pixels of a panel: whole numbers of pixels a patch for 16, 18, 24, 32, 36 and 48 patches
GAP = 10
LETTERS = 34
"""That fit over a panel, or beside it; below, those of small print."""
SMALL_LETTERS = 50

MAP = "viridis"


@dataclass(frozen=True)
class ImagePanel:
    """Pixels with a note below; or, where there are none, a note in their place."""

    pixels: UInt8[np.ndarray, "h w 3"] | None
    note: str = ""


@dataclass(frozen=True)
class EncoderColumn:
    """What stands over a column."""

    title: str
    subtitle: str = ""
    remark: str = ""


def draw(
    rows: Sequence[str],
    columns: Sequence[EncoderColumn],
    panels: Sequence[Sequence[ImagePanel]],
    *,
    mark: tuple[float, float] | None = None,
    bar: tuple[float, float, str] | None = None,
) -> bytes:
    """The PNG.

    panels: a list for each row. mark: a cross at these shares of width and height, in every panel with pixels.
    bar: lowest and highest value of the colours of MAP, and what they say; for a bar at the right.
    """
    # The object interface: nothing global, no window, safe in any thread.
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    notes = any(panel.pixels is not None and panel.note for row in panels for panel in row)
    lines = 3 if any(c.remark for c in columns) else 2 if any(c.subtitle for c in columns) else 1
    left, right, top, bottom = 34, 92 if bar else GAP, 18 + 17 * lines, GAP
    step_x, step_y = SIDE + GAP, SIDE + GAP + (20 if notes else 0)
    width = left + len(columns) * step_x - GAP + right
    height = top + len(rows) * step_y - GAP + bottom
    figure = Figure(figsize=(width / DOTS, height / DOTS), dpi=DOTS)
    FigureCanvasAgg(figure)

    def place(x: int, y: int, across: int, down: int) -> Any:
        """Axes whose top left corner and size are these whole pixels, so that every patch is a clean square."""
        return figure.add_axes((x / width, 1 - (y + down) / height, across / width, down / height))

    for number, column in enumerate(columns):
        middle = (left + number * step_x + SIDE / 2) / width
        title = shortened(column.title, LETTERS)
        figure.text(middle, 1 - 8 / height, title, ha="center", va="top", fontsize=11, weight="bold")
        for line, text in enumerate((column.subtitle, column.remark)):
            small = {"ha": "center", "va": "top", "fontsize": 8.5, "color": "#555555"}
            figure.text(middle, 1 - (29 + 17 * line) / height, shortened(text, SMALL_LETTERS), **small)
    for number, name in enumerate(rows):
        y = top + number * step_y
        figure.text(
            (left - 8) / width, 1 - (y + SIDE / 2) / height, shortened(name, LETTERS),
            rotation=90, ha="right", va="center", fontsize=9,
        )  # fmt: skip
        for position, panel in enumerate(panels[number]):
            _draw_panel(place(left + position * step_x, y, SIDE, SIDE), panel, mark)
    if bar:
        _draw_bar(figure, place(width - right + 16, top, 16, SIDE), *bar)
    content = io.BytesIO()
    figure.savefig(content, format="png", metadata={"Software": None})
    return content.getvalue()


def shortened(text: str, letters: int) -> str:
    """The middle left out where the text is longer: beginnings and ends tell names apart."""
    if len(text) <= letters:
        return text
    kept = letters - 3
    return f"{text[: kept - kept // 2]}...{text[len(text) - kept // 2 :]}"


def in_colours(
    values: Float[np.ndarray, "h w"], low: float, high: float, name: str = MAP
) -> UInt8[np.ndarray, "h w 3"]:
    """Values in the colours of one of matplotlib's maps."""
    import matplotlib

    shares = np.clip((values - low) / max(high - low, 1e-12), 0, 1)
    return (matplotlib.colormaps[name](shares)[..., :3] * 255).round().astype(np.uint8)


def _draw_panel(ax: Any, panel: ImagePanel, mark: tuple[float, float] | None) -> None:
    ax.set_xticks([])
    ax.set_yticks([])
    ax.spines[:].set_visible(False)
    if panel.pixels is None:
        ax.set_facecolor("#f2f2f2")
        ax.text(0.5, 0.5, panel.note, ha="center", va="center", fontsize=10, color="#555555", wrap=True)
        return
    # From 0 to 1, so that a mark is in the same place whatever the grid.
    is_map = panel.pixels.shape[0] < SIDE
    ax.imshow(panel.pixels, interpolation="nearest" if is_map else "antialiased", extent=(0, 1, 1, 0))
    ax.set_xlim(0, 1)
    ax.set_ylim(1, 0)
    if mark is not None:
        ax.plot(*mark, marker="+", markersize=17, markeredgewidth=4.5, color="black")
        ax.plot(*mark, marker="+", markersize=15, markeredgewidth=2.0, color="white")
    if panel.note:
        ax.text(0.5, 1.02, panel.note, ha="center", va="top", fontsize=8.5, color="#555555")


def _draw_bar(figure: Any, ax: Any, low: float, high: float, label: str) -> None:
    from matplotlib.cm import ScalarMappable
    from matplotlib.colors import Normalize

    bar = figure.colorbar(ScalarMappable(Normalize(low, high), MAP), cax=ax)
    bar.set_label(label, fontsize=9)
    bar.ax.tick_params(labelsize=8)
    bar.outline.set_visible(False)
