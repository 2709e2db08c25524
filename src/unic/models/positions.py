"""Position embeddings on another grid, as each family's own code resamples them.

Letters: D width, S tokens with a position.
"""

from collections.abc import Mapping
from typing import Any

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from unic.models.config import Resampling

Positions = tuple[Float[Tensor, "1 S D"], Resampling]
"""A position embedding on the grid it came with, and how its family resamples it."""


def resample_positions(
    positions: Float[Tensor, "1 S D"], rows: int, columns: int, *, num_prefix: int, how: Resampling
) -> Float[Tensor, "1 T D"]:
    """Positions of a square grid brought to `rows` x `columns`; the first `num_prefix` ones belong to no patch.

    Computed in float32. The grid it already has is left alone, as all the originals do.
    """
    prefix, grid = positions[:, :num_prefix], positions[:, num_prefix:]
    side = round(grid.shape[1] ** 0.5)
    if side * side != grid.shape[1]:
        raise ValueError(f"{grid.shape[1]} positions are no square grid")
    if side == rows == columns:
        return positions
    maps = grid.float().unflatten(1, (side, side)).permute(0, 3, 1, 2)  # (1, N, D) -> (1, D, h, w)
    if how.offset:
        scale = ((rows + how.offset) / side, (columns + how.offset) / side)
        maps = F.interpolate(maps, scale_factor=scale, mode="bicubic", antialias=how.antialias)
    else:
        maps = F.interpolate(maps, (rows, columns), mode="bicubic", antialias=how.antialias)
    assert maps.shape[-2:] == (rows, columns), "an offset below one row cannot change the number of rows"
    return torch.cat([prefix, maps.flatten(2).transpose(1, 2).to(prefix.dtype)], dim=1)


def fit_positions(state: Mapping[str, Tensor], model: Any, how: Resampling) -> dict[str, Tensor]:
    """A timm ViT's weights with the position grid that `model` has; others are handed back as they are."""
    own, theirs = getattr(model, "pos_embed", None), state.get("pos_embed")
    if own is None or theirs is None or own.shape == theirs.shape or own.shape[-1] != theirs.shape[-1]:
        return dict(state)
    num_prefix = num_without_place(model)
    rows = round((own.shape[1] - num_prefix) ** 0.5)
    try:
        resampled = resample_positions(theirs, rows, rows, num_prefix=num_prefix, how=how)
        return {**state, "pos_embed": resampled}
    except ValueError:
        return dict(state)  # loading strictly names the shapes


def positions_of(state: Mapping[str, Tensor], how: Resampling) -> Positions | None:
    """The positions of a file as they are: an encoder resamples these for every size, and never twice."""
    positions = state.get("pos_embed")
    return None if positions is None or positions.ndim != 3 else (positions.detach().clone(), how)


def num_without_place(model: Any) -> int:
    """How many of a timm ViT's positions are those of class and register tokens."""
    return 0 if getattr(model, "no_embed_class", False) else getattr(model, "num_prefix_tokens", 0)
