"""A picture of each kind, as a table: a row for each image, a column for each encoder.

Letters: B images, h w grid of patches, E width.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Float
from PIL import Image
from torch import Tensor

from unic.core.errors import ConfigError
from unic.data.crop import evaluation_view
from unic.tools.visualize.extract import EncoderMaps
from unic.tools.visualize.options import Basis
from unic.tools.visualize.output import SavedPicture
from unic.tools.visualize.panels import SIDE, EncoderColumn, ImagePanel, draw, in_colours
from unic.tools.visualize.pca import in_own_colours, in_shared_colours

HEADS = 6
"""In one picture: with more, a page would shrink it too far."""


@dataclass(frozen=True)
class PictureTable:
    """A row for each picture, by its name; behind it in the row, what each encoder sees."""

    pictures: Mapping[str, Image.Image]
    seen: list[EncoderMaps]

    def png(
        self, columns: Sequence[Sequence[ImagePanel]], heads: Sequence[EncoderColumn] | None = None, **options
    ) -> bytes:
        """columns: panels of each column, top to bottom. heads: of these columns; one an encoder when left out."""
        heads = heads or [EncoderColumn(seen.name, seen.size) for seen in self.seen]
        panels = [
            [ImagePanel(_square(picture)), *(column[row] for column in columns)]
            for row, picture in enumerate(self.pictures.values())
        ]
        return draw(list(self.pictures), [EncoderColumn("image"), *heads], panels, **options)

    @property
    def names(self) -> str:
        return ", ".join(seen.name for seen in self.seen)

    def everywhere(self, note: str) -> list[ImagePanel]:
        return [ImagePanel(None, note) for _ in self.pictures]


def pca_table(table: PictureTable, basis: Basis, *, foreground: bool) -> SavedPicture:
    if basis == "shared":
        found = in_shared_colours(table.seen)
        both = zip(table.seen, found, strict=True)
        first = next(
            (seen.name for seen, coloured in both if coloured.pixels is not None), "the first encoder"
        )
        caption = (
            f"The first three principal components of the patches of {first}, over these images, as red, green and "
            "blue (percentiles 1 to 99). Every other encoder's standardised components are rotated to come "
            "nearest to these (orthogonal Procrustes), so the same colour stands for the same thing. r: how well they "
            "correlate then, a mean over the three. A student's head in the space of that teacher is standardised and "
            "not rotated; its spread says how far its features vary, against the teacher's."
        )
    else:
        found = [in_own_colours(seen, foreground=foreground) for seen in table.seen]
        caption = (
            "The first three principal components of each encoder's patches, over these images, as red, green and blue "
            "(percentiles 1 to 99). Like colours in one column are alike for that encoder; colours of two columns "
            "cannot be compared."
        )
        if foreground:
            caption += " Black: what the first component sets apart as background."
    columns = [
        table.everywhere(coloured.remark)
        if coloured.pixels is None
        else [ImagePanel(pixels.numpy()) for pixels in coloured.pixels]
        for coloured in found
    ]
    heads = [
        EncoderColumn(seen.name, seen.size, coloured.remark if coloured.pixels is not None else "")
        for seen, coloured in zip(table.seen, found, strict=True)
    ]
    title = f"Principal components of patches{', shared colours' * (basis == 'shared')}: {table.names}"
    return SavedPicture(kind="pca", title=title, caption=caption, content=table.png(columns, heads))


def similarity_table(table: PictureTable, patch: tuple[float, float]) -> SavedPicture:
    found = [similarities(seen.maps, patch) for seen in table.seen]
    # One scale for all. Few patches lie far below the rest, and would take the colours from it.
    lowest = min(float(torch.quantile(maps.flatten(), 0.01)) for maps in found)
    low = max(min(math.floor(lowest * 10) / 10, 0.9), -1.0)
    columns = [[ImagePanel(in_colours(values.numpy(), low, 1.0)) for values in maps] for maps in found]
    label = "cosine similarity to the marked patch"
    return SavedPicture(
        kind="similarity",
        title=f"Patches like one patch: {table.names}",
        caption=f"Cosine similarity of every patch to the one at the cross, {patch[0]:g} of the width and {patch[1]:g} "
        "of the height; one scale for all encoders.",
        content=table.png(columns, mark=patch, bar=(low, 1.0, label)),
    )


def similarities(maps: Float[Tensor, "B E h w"], patch: tuple[float, float]) -> Float[Tensor, "B h w"]:
    """Cosine of the angle between every patch and the one at these shares of width and height."""
    directions = F.normalize(maps.double(), dim=1)
    rows, columns = maps.shape[-2:]
    row, column = min(int(patch[1] * rows), rows - 1), min(int(patch[0] * columns), columns - 1)
    return (directions * directions[:, :, row, None, column, None]).sum(1)


def attention_tables(table: PictureTable, *, heads: bool) -> list[SavedPicture]:
    found = attending(table.seen)
    if not found:
        reasons = "; ".join(f"{seen.name}: {seen.attention}" for seen in table.seen)
        raise ConfigError(
            f"no encoder has attention to show ({reasons}); leave out --kinds attention and --heads"
        )
    columns = [
        table.everywhere(seen.attention)
        if isinstance(seen.attention, str)
        else _attention_panels(seen.attention.mean(1))
        for seen in table.seen
    ]
    how = (
        "Dark is none, and each panel has its own scale. The note says how much of the attention goes to patches (the "
        "rest stays with class and register tokens), and how many times the mean the most attended patch gets."
    )
    drawn = [
        SavedPicture(
            kind="attention",
            title=f"Where the class token looks: {table.names}",
            caption=f"Attention of the class token in the last block, mean over heads. {how}",
            content=table.png(columns),
        )
    ]
    return drawn + [
        _by_head(table, name, maps, start, how)
        for name, maps in (found.items() if heads else ())
        for start in range(0, maps.shape[1], HEADS)
    ]


def _by_head(table: PictureTable, name: str, maps: Tensor, start: int, how: str) -> SavedPicture:
    """Some heads of one encoder, beside their mean."""
    numbers = range(start, min(start + HEADS, maps.shape[1]))
    panels = [_attention_panels(maps.mean(1)), *(_attention_panels(maps[:, number]) for number in numbers)]
    labels = [EncoderColumn("mean of heads"), *(EncoderColumn(f"head {number + 1}") for number in numbers)]
    which = f"{start + 1} to {numbers.stop} of {maps.shape[1]}, {name}"
    return SavedPicture(
        kind="attention",
        title=f"Where the class token looks: heads {which}",
        caption=f"Attention of the class token in the last block, by head. {how}",
        content=table.png(panels, labels),
    )


def attending(seen: Sequence[EncoderMaps]) -> dict[str, Tensor]:
    """Attention by the names of the encoders that have it."""
    return {one.name: one.attention for one in seen if isinstance(one.attention, Tensor)}


def _attention_panels(maps: Tensor) -> list[ImagePanel]:
    panels = []
    for attention in maps:
        # A single patch can take most of it (a register in disguise), and would leave the rest black.
        high = float(torch.quantile(attention.flatten(), 0.995))
        share, peak = float(attention.sum()), float(attention.max() / attention.mean())
        panels.append(
            ImagePanel(
                in_colours(attention.numpy(), 0.0, high, "inferno"),
                f"{share:.0%} to patches, at most {peak:.1f} x the mean",
            )
        )
    return panels


def _square(picture: Image.Image) -> np.ndarray:
    """The part that encoders see, at the size of a panel."""
    return evaluation_view(picture, SIDE).permute(1, 2, 0).numpy()  # (3, S, S) -> (S, S, 3)
