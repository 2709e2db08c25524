"""Networks for pictures of another size than they were built for: padding, copies that share weights, block numbers.

Letters: B images, H W pixels, h w padded.
"""

import copy
from collections.abc import Sequence
from typing import Any

import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from unic.core.errors import ConfigError


def centre_padded(pixels: Float[Tensor, "B 3 H W"], multiple: int) -> Float[Tensor, "B 3 h w"]:
    """Zeros around the picture until both sides are multiples; the odd one at the right or the bottom.

    Source: CenterPadding of DINOv2's dense evaluations.
    """
    down, across = (-side % multiple for side in pixels.shape[-2:])
    return F.pad(pixels, (across // 2, across - across // 2, down // 2, down - down // 2))


def sharing_weights(model: nn.Module) -> Any:
    """A copy whose parameters and buffers are the very tensors of `model`: replacing one changes only the copy."""
    tensors = [*model.parameters(), *model.buffers()]
    return copy.deepcopy(model, {id(tensor): tensor for tensor in tensors})


def block_numbers(layers: Sequence[int], depth: int, name: str) -> list[int]:
    """Positions of blocks counted from 0; negative ones count from the end. Raises ConfigError for others."""
    outside = [layer for layer in layers if not -depth <= layer < depth]
    if outside or not layers:
        raise ConfigError(
            f"{name} has blocks 0 to {depth - 1}, or -1 to -{depth} from the end; asked for {list(outside) or 'none'}"
        )
    return [layer % depth for layer in layers]
