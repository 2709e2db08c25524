"""Files that say what is right for each pixel: masks of classes, and maps of depth.

Letters: H W pixels.
"""

import colorsys
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float32, UInt8
from PIL import Image
from PIL.PngImagePlugin import PngImageFile
from torch import Tensor

from unic.core.errors import DataError
from unic.data.decode import BadImage, open_image

IGNORED = 255
"""What masks say, once read, where a pixel counts nowhere."""

_MOST_CLASSES = IGNORED
_MOST = 0xFFFF

# Pillow spreads the few levels of such grey images over 0..255; the numbers in the file are these parts of its own.
_SPREAD = {"L;2": 85, "L;4": 17}


@dataclass(frozen=True, kw_only=True)
class Masks:
    """How the files of a set say the class of a pixel.

    palette: red, green, blue in 0..255 for each class.
    first: the number in the files that stands for the first class (1 in ADE20K).
    ignored: the numbers in the files that stand for no class.
    """

    classes: tuple[str, ...]
    palette: tuple[tuple[int, int, int], ...]
    first: int = 0
    ignored: tuple[int, ...] = (IGNORED,)

    def __post_init__(self) -> None:
        if not 2 <= len(self.classes) <= _MOST_CLASSES:
            raise DataError(f"{len(self.classes)} classes; wanted 2 to {_MOST_CLASSES}")
        if len(self.palette) != len(self.classes):
            raise DataError(f"{len(self.palette)} colours for {len(self.classes)} classes")
        numbers = range(self.first, self.first + len(self.classes))
        if numbers[-1] > _MOST:
            raise DataError(f"{numbers[-1]} is the number of the last class; wanted at most {_MOST}")
        both = [number for number in self.ignored if number in numbers]
        if both:
            raise DataError(f"{both[0]} is the number of a class and ignored; it can be one of them")


@dataclass(frozen=True, kw_only=True)
class Depths:
    """How the files of a set say the depth of a pixel, and which pixels count.

    scale: units of the files in a metre; 0 in a file is unknown.
    nearest, farthest: metres; what is not between them counts nowhere.
    scored: the rows and columns that test images are judged on: top, bottom, left, right, ends excluded.
    border: the rows and columns that training images are cut to first.
    size: width and height of every image, which rows and columns are counted in; None for a set of many sizes.
    """

    scale: float
    nearest: float
    farthest: float
    scored: tuple[int, int, int, int]
    border: tuple[int, int, int, int]
    size: tuple[int, int] | None = None


def distinct_colours(count: int) -> tuple[tuple[int, int, int], ...]:
    """Hues in steps of the golden section, in nine shades: neighbours in the list differ."""
    colours = []
    for i in range(count):
        rgb = colorsys.hsv_to_rgb(i * 0.618034 % 1, (0.55, 0.8, 1.0)[i % 3], (1.0, 0.75, 0.55)[i // 3 % 3])
        colours.append((round(255 * rgb[0]), round(255 * rgb[1]), round(255 * rgb[2])))
    return tuple(colours)


def read_mask(path: str | Path, masks: Masks, size: tuple[int, int]) -> UInt8[Tensor, "H W"]:
    """The class of each pixel from 0 on, IGNORED where it has none.

    size: width and height of the image. Raises DataError, naming the file, for a mask that is missing, damaged, of
      another size, in colours instead of numbers, or with a number that is neither a class nor ignored.
    """
    numbers = _read_numbers(path, size, "a mask")
    table = np.full(_MOST + 1, -1, dtype=np.int16)
    table[list(masks.ignored)] = IGNORED
    table[masks.first : masks.first + len(masks.classes)] = np.arange(len(masks.classes))
    found = table[numbers]
    if (found < 0).any():
        strange, counts = np.unique(numbers[found < 0], return_counts=True)
        last = masks.first + len(masks.classes) - 1
        raise DataError(
            f"{path}: the number {strange[0]} at {counts[0]} pixels is no class; wanted {masks.first} to {last}, or "
            f"{', '.join(map(str, masks.ignored)) or 'nothing else'} for pixels to ignore"
        )
    return torch.from_numpy(found.astype(np.uint8))


def read_depth(path: str | Path, depths: Depths, size: tuple[int, int]) -> Float32[Tensor, "H W"]:
    """Metres for each pixel, 0 where the depth is unknown.

    size: width and height of the image. Raises DataError, naming the file, for a map that is missing, damaged, of
      another size than the image or the set, or knows no depth at all.
    """
    numbers = _read_numbers(path, size, "a map of depth")
    if depths.size not in (None, size):
        raise DataError(
            f"{path}: {size[0]} x {size[1]} px; wanted {depths.size[0]} x {depths.size[1]}, in which the part that is "
            "judged is given"
        )
    if not numbers.any():
        raise DataError(f"{path}: all depths are 0, so unknown; is it the right file?")
    return torch.from_numpy(numbers.astype(np.float32) / np.float32(depths.scale))


def _read_numbers(path: str | Path, size: tuple[int, int], what: str) -> np.ndarray:
    """One whole number a pixel, in 0..65535; of a palette its indices."""
    try:
        image = open_image(path, _as_stored)
    except BadImage as error:
        raise DataError(f"{error} (wanted {what})") from error
    if image.mode not in ("L", "P", "1") and not image.mode.startswith("I"):
        raise DataError(
            f"{path}: {len(image.getbands())} channels ({image.mode}); wanted {what} with one number a pixel"
        )
    if image.size != size:
        raise DataError(
            f"{path}: {image.width} x {image.height} px, but its image has {size[0]} x {size[1]}; wanted {what} of "
            f"the same size"
        )
    numbers = np.asarray(image).astype(np.int64)
    if numbers.min() < 0 or numbers.max() > _MOST:
        raise DataError(f"{path}: numbers from {numbers.min()} to {numbers.max()}; wanted 0 to {_MOST}")
    return numbers


def _as_stored(image: Image.Image) -> Image.Image:
    spread = _SPREAD.get(str(image.tile[0].args), 1) if isinstance(image, PngImageFile) else 1
    return image.copy() if spread == 1 else image.point([level // spread for level in range(256)])


def size_of(pixels: UInt8[Tensor, "3 H W"]) -> tuple[int, int]:
    """Width and height."""
    return pixels.shape[2], pixels.shape[1]
