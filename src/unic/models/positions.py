"""Position embeddings on another grid, as each family's own code resamples them.

Letters: D width, S tokens with a position.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor


@dataclass(frozen=True)
class Resampling:
    """How a position grid changes its size: bicubic, and then families differ.

    antialias: low-pass when the grid shrinks.
    offset: added to the number of rows and columns before the scale is computed; DINO, iBOT and the first DINOv2 models
      add 0.1 against a rounding error, and so sample at slightly other places (facebookresearch/dino
      vision_transformer.py, dinov2 configs: interpolate_offset).
    """

    antialias: bool = True
    offset: float = 0.0


def resample_positions(
    positions: Float[Tensor, "1 S D"], rows: int, *, num_prefix: int, how: Resampling
) -> Float[Tensor, "1 T D"]:
    """Positions of a square grid brought to `rows` x `rows`; the first `num_prefix` ones belong to no patch.

    Computed in float32. The grid it already has is left alone, as all the originals do.
    """
    prefix, grid = positions[:, :num_prefix], positions[:, num_prefix:]
    side = round(grid.shape[1] ** 0.5)
    if side * side != grid.shape[1]:
        raise ValueError(f"{grid.shape[1]} positions are no square grid")
    if side == rows:
        return positions
    maps = grid.float().unflatten(1, (side, side)).permute(0, 3, 1, 2)  # (1, N, D) -> (1, D, h, w)
    if how.offset:
        scale = (rows + how.offset) / side
        maps = F.interpolate(maps, scale_factor=(scale, scale), mode="bicubic", antialias=how.antialias)
    else:
        maps = F.interpolate(maps, (rows, rows), mode="bicubic", antialias=how.antialias)
    assert maps.shape[-2:] == (rows, rows), "an offset below one row cannot change the number of rows"
    return torch.cat([prefix, maps.flatten(2).transpose(1, 2).to(prefix.dtype)], dim=1)


def fit_positions(state: Mapping[str, Tensor], model: Any, how: Resampling) -> dict[str, Tensor]:
    """A timm ViT's weights with the position grid that `model` has; others are handed back as they are."""
    own, theirs = getattr(model, "pos_embed", None), state.get("pos_embed")
    if own is None or theirs is None or own.shape == theirs.shape or own.shape[-1] != theirs.shape[-1]:
        return dict(state)
    num_prefix = 0 if model.no_embed_class else model.num_prefix_tokens
    rows = round((own.shape[1] - num_prefix) ** 0.5)
    try:
        return {**state, "pos_embed": resample_positions(theirs, rows, num_prefix=num_prefix, how=how)}
    except ValueError:
        return dict(state)  # loading strictly names the shapes
