"""Crops for learning depth: the pipeline that DINOv2 uses on NYU Depth v2 (Monocular-Depth-Estimation-Toolbox).

Border cut off, rotation, flip, crop, colour. Test images are seen whole, as they are.
Letters: H W pixels of the image, h w of the crop.
"""

import math
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Float, Float32, Shaped, UInt8
from torch import Tensor

from unic.core.errors import DataError
from unic.data.dense.segmentation_views import first_place


@dataclass(frozen=True)
class Colour:
    """gamma: exponent of values in 0..255, in [0.9, 1.1). brightness: factor in [0.75, 1.25).

    channels: a factor in [0.9, 1.1) for red, green and blue.
    """

    gamma: float
    brightness: float
    channels: tuple[float, float, float]


@dataclass(frozen=True)
class DepthDraws:
    """All that is random about one crop.

    angle: degrees clockwise, in [-2.5, 2.5); None: not rotated.
    corner: (down, across), each in [0, 1): which of the places where the crop fits it has.
    colour: None: not changed.
    """

    angle: float | None
    flips: bool
    corner: tuple[float, float]
    colour: Colour | None


def draw(generator: np.random.Generator) -> DepthDraws:
    """Rotation, flip and colour happen to half of the crops each."""
    rotates, flips, recolours = (bool(share < 0.5) for share in generator.random(3))
    angle = float(generator.uniform(-2.5, 2.5))
    down, across = generator.random(2).tolist()
    gamma, red, green, blue = generator.uniform(0.9, 1.1, 4).tolist()
    brightness = float(generator.uniform(0.75, 1.25))
    return DepthDraws(
        angle=angle if rotates else None,
        flips=flips,
        corner=(down, across),
        colour=Colour(gamma, brightness, (red, green, blue)) if recolours else None,
    )


def training_view(
    image: UInt8[Tensor, "3 H W"],
    depth: Float32[Tensor, "H W"],
    draws: DepthDraws,
    *,
    border: tuple[int, int, int, int],
    size: tuple[int, int] = (416, 544),
) -> tuple[UInt8[Tensor, "3 h w"], Float32[Tensor, "h w"]]:
    """A crop of at most `size` (height, width), smaller where the image is; its depth is 0 where nothing is known.

    border: top, bottom, left, right of what is kept of the image, ends excluded. Raises DataError if it has less.
    """
    top, bottom, left, right = border
    height, width = depth.shape
    if bottom > height or right > width:
        raise DataError(
            f"an image of {width} x {height} px; wanted at least {right} x {bottom}, since columns {left} to {right} "
            f"and rows {top} to {bottom} are kept of it"
        )
    pixels, metres = image[:, top:bottom, left:right], depth[top:bottom, left:right]
    if draws.angle is not None:
        pixels, metres = rotated(pixels, metres, draws.angle)
    if draws.flips:
        pixels, metres = pixels.flip(-1), metres.flip(-1)
    down, across = (first_place(*lengths) for lengths in zip(metres.shape, size, draws.corner, strict=True))
    kept = (..., slice(down, down + size[0]), slice(across, across + size[1]))
    pixels, metres = pixels[kept], metres[kept].contiguous()
    return (pixels.contiguous() if draws.colour is None else recoloured(pixels, draws.colour)), metres


def rotated(
    pixels: UInt8[Tensor, "3 H W"], metres: Float32[Tensor, "H W"], angle: float
) -> tuple[UInt8[Tensor, "3 H W"], Float32[Tensor, "H W"]]:
    """About the middle, by `angle` degrees clockwise; 0 where there was no picture.

    Depth is that of the nearest pixel: between two surfaces there is none.
    """
    height, width = metres.shape
    cos, sin = math.cos(math.radians(angle)), math.sin(math.radians(angle))
    y = torch.arange(height)[:, None] - (height - 1) / 2
    x = torch.arange(width) - (width - 1) / 2
    # grid_sample wants -1 and 1 at the middles of the first and the last pixel.
    from_x, from_y = (
        (cos * x + sin * y) * (2 / max(width - 1, 1)),
        (cos * y - sin * x) * (2 / max(height - 1, 1)),
    )
    grid = torch.stack([from_x, from_y], dim=-1)
    turned = _sampled(pixels.float(), grid, "bilinear").round_().to(torch.uint8)
    return turned, _sampled(metres[None], grid, "nearest")[0]


def recoloured(pixels: UInt8[Tensor, "3 h w"], colour: Colour) -> UInt8[Tensor, "3 h w"]:
    """The original raises values in 0..255, not in 0..1, to `gamma`, so that it mostly brightens or darkens.

    Rounded to bytes at the end, which the original leaves out: at most half a level.
    """
    levels = torch.arange(256, dtype=torch.float64) ** colour.gamma * colour.brightness
    table = (levels * torch.tensor(colour.channels)[:, None]).clamp_(0, 255).round_().to(torch.uint8)
    return table.gather(1, pixels.flatten(1).long()).view(pixels.shape)


def _sampled(x: Shaped[Tensor, "C H W"], grid: Float[Tensor, "h w 2"], mode: str) -> Float[Tensor, "C h w"]:
    return F.grid_sample(x[None], grid[None], mode=mode, padding_mode="zeros", align_corners=True)[0]
