"""Crops for learning segmentation, and the size of test images: the pipeline of mmseg 0.30 that DINOv2 uses on ADE20K.

Resize, crop, flip, photometric distortion. Padding comes later: its zeros are those of normalised pixels.
Letters: H W pixels of the image, h w of the crop, n rows or columns.
"""

from dataclasses import dataclass
from functools import cache
from typing import TypeVar

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Float, Int64, Shaped, UInt8
from torch import Tensor

from unic.data.dense.read_annotations import IGNORED

T = TypeVar("T")

_REDRAWS = 10
_LARGEST_SHARE = 0.75


@dataclass(frozen=True)
class SegmentationDraws:
    """All that is random about one crop.

    ratio: in [0.5, 2), of the shorter side after resizing to the side of the crop.
    corners: (down, across), each in [0, 1): which of the places where the crop fits it has. The first, then the ten
      that are tried one after the other while one class fills too much of the crop; the last is taken unseen.
    brightness: added, in [-32, 32). contrast, saturation: factors in [0.5, 1.5). hue: added, in -18..17 of 180.
      Each is None where it is not changed.
    contrast_first: before saturation and hue, or after them.
    """

    ratio: float
    corners: tuple[tuple[float, float], ...]
    flips: bool
    brightness: float | None
    contrast_first: bool
    contrast: float | None
    saturation: float | None
    hue: int | None


def draw(generator: np.random.Generator) -> SegmentationDraws:
    """Every colour operation happens to half of the crops."""

    def half_of(value: T) -> T | None:
        return value if generator.random() < 0.5 else None

    return SegmentationDraws(
        ratio=float(generator.uniform(0.5, 2.0)),
        corners=tuple((float(y), float(x)) for y, x in generator.random((1 + _REDRAWS, 2))),
        flips=bool(generator.random() < 0.5),
        brightness=half_of(generator.uniform(-32, 32)),
        contrast_first=bool(generator.random() < 0.5),
        contrast=half_of(generator.uniform(0.5, 1.5)),
        saturation=half_of(generator.uniform(0.5, 1.5)),
        hue=half_of(int(generator.integers(-18, 18))),
    )


def training_view(
    image: UInt8[Tensor, "3 H W"], mask: UInt8[Tensor, "H W"], draws: SegmentationDraws, *, size: int = 512
) -> tuple[UInt8[Tensor, "3 h w"], UInt8[Tensor, "h w"]]:
    """A crop of at most `size` x `size` pixels, smaller where the resized image is.

    size: also the shorter side that `SegmentationDraws.ratio` is relative to.
    """
    resized = _resized(image.shape[-2:], int(size * draws.ratio))
    top, left, truth = _crop(mask, draws.corners[0], size, resized)
    for corner in draws.corners[1:]:  # the last one stands, whatever is there
        if _is_mixed(truth):
            break
        top, left, truth = _crop(mask, corner, size, resized)
    pixels = _bilinear(image, resized)[:, top : top + size, left : left + size]
    if draws.flips:
        pixels, truth = pixels.flip(-1), truth.flip(-1)
    return _distorted(pixels, draws), truth.contiguous()


def testing_view(image: UInt8[Tensor, "3 H W"], *, size: int = 512) -> UInt8[Tensor, "3 h w"]:
    """The whole image, its shorter side `size` pixels."""
    return _bilinear(image, _resized(image.shape[-2:], size))


def to_hsv(pixels: Float[Tensor, "3 h w"]) -> Float[Tensor, "3 h w"]:
    """OpenCV's hue (0..179, two degrees each), saturation and value (0..255) of bytes, all whole numbers.

    pixels: red, green, blue, whole numbers in 0..255.
    """
    r, g, b = pixels
    value = torch.maximum(torch.maximum(r, g), b)
    chroma = value - torch.minimum(torch.minimum(r, g), b)
    # OpenCV divides by multiplying with a table of whole numbers of 1 / 4096. Here everything up to the shift stays
    # below 2**24, where float32 counts exactly.
    per_chroma = (4096 * 30 / chroma.clamp(min=1)).round_()
    per_value = (4096 * 255 / value.clamp(min=1)).round_()
    sixths = torch.where(  # of a turn, times chroma; 0 for greys
        value == r, g - b, torch.where(value == g, b - r + 2 * chroma, r - g + 4 * chroma)
    )
    hue = _shifted(sixths * per_chroma)
    return torch.stack([torch.where(hue < 0, hue + 180, hue), _shifted(chroma * per_value), value])


def from_hsv(hsv: Float[Tensor, "3 h w"]) -> Float[Tensor, "3 h w"]:
    """The inverse: red, green and blue, cut off to whole numbers and not rounded.

    OpenCV rounds, too, but only in the last few pixels of a line, which its vector instructions leave over.
    """
    hue, saturation, value = hsv
    lacks = _lacks().index_select(1, hue.flatten().int()).view_as(hsv)
    colours = (1 - lacks.mul_(saturation * (1 / 255))).mul_(value * (1 / 255))
    return colours.mul_(255).floor_()


def first_place(length: int, size: int, draw: float) -> int:
    """Where a crop of `size` begins on an axis of `length` pixels; 0 if it is no shorter.

    draw: in [0, 1); every place where the crop fits has the same share of it.
    """
    return int(draw * (max(length - size, 0) + 1))


def _resized(size: tuple[int, int] | torch.Size, shorter: int) -> tuple[int, int]:
    scale = shorter / min(size)
    return max(int(size[0] * scale + 0.5), 1), max(int(size[1] * scale + 0.5), 1)


def _crop(
    mask: UInt8[Tensor, "H W"], corner: tuple[float, float], size: int, resized: tuple[int, int]
) -> tuple[int, int, UInt8[Tensor, "h w"]]:
    """Top and left in the resized image, and the classes there."""
    top, left = (first_place(length, size, share) for length, share in zip(resized, corner, strict=True))
    rows, columns = (_nearest(old, new) for old, new in zip(mask.shape, resized, strict=True))
    return top, left, mask[rows[top : top + size]][:, columns[left : left + size]]


def _is_mixed(truth: UInt8[Tensor, "h w"]) -> bool:
    """No class has more than its share of the pixels that count, so there are two at least."""
    counts = torch.bincount(truth.flatten(), minlength=256)[:IGNORED]
    return int(counts.max()) < _LARGEST_SHARE * int(counts.sum())


def _nearest(old: int, new: int) -> Int64[Tensor, " n"]:
    """Which of `old` rows or columns each of `new` ones is, by OpenCV's rule."""
    return (torch.arange(new, dtype=torch.float64) * (1 / (new / old))).floor().long().clamp(max=old - 1)


def _bilinear(image: UInt8[Tensor, "3 H W"], size: tuple[int, int]) -> UInt8[Tensor, "3 h w"]:
    """Without a filter, also where the image becomes smaller: that is how OpenCV resizes."""
    return F.interpolate(image[None], size, mode="bilinear", align_corners=False, antialias=False)[0]


def _distorted(pixels: UInt8[Tensor, "3 h w"], draws: SegmentationDraws) -> UInt8[Tensor, "3 h w"]:
    """Each step ends in whole numbers from 0 to 255, cut off and not rounded, as in the original."""
    x = pixels.float()
    if draws.brightness is not None:
        x = _cut_off(x + draws.brightness)
    if draws.contrast is not None and draws.contrast_first:
        x = _cut_off(x * draws.contrast)
    if draws.saturation is not None:
        hsv = to_hsv(x)
        hsv[1] = _cut_off(hsv[1] * draws.saturation)
        x = from_hsv(hsv)
    if draws.hue is not None:
        hsv = to_hsv(x)
        hsv[0] = (hsv[0] + draws.hue).remainder_(180)
        x = from_hsv(hsv)
    if draws.contrast is not None and not draws.contrast_first:
        x = _cut_off(x * draws.contrast)
    return x.to(torch.uint8)


@cache
def _lacks() -> Float[Tensor, "3 180"]:
    """Which part of a colour's chroma is missing in its red, green and blue, for each hue."""
    sixths = torch.arange(180) * torch.tensor(6 / 180)
    sector = sixths.floor()
    rises = sixths - sector
    places = (sector + torch.tensor([5.0, 3.0, 1.0])[:, None]) % 6
    parts = torch.where(places == 0, rises, torch.where(places == 3, 1 - rises, 1.0))
    return torch.where(places < 4, parts, 0.0)


def _shifted(x: Float[Tensor, "h w"]) -> Float[Tensor, "h w"]:
    """To whole numbers from those of 1 / 4096, halves up."""
    return ((x + 2048) / 4096).floor_()


def _cut_off(x: Shaped[Tensor, "..."]) -> Shaped[Tensor, "..."]:
    return x.clamp_(0, 255).floor_()
