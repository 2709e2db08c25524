"""Reading files that say what is right for each pixel: masks of classes, and maps of depth.

Letters: H W pixels.
"""

from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float32, UInt8
from PIL import Image
from PIL.PngImagePlugin import PngImageFile
from torch import Tensor

from unic.core.errors import DataError
from unic.data.decode import BadImage, open_image
from unic.data.dense.label_encoding import IGNORED, MOST, Depths, Masks

# Pillow spreads the few levels of such grey images over 0..255; the numbers in the file are these parts of its own.
_SPREAD = {"L;2": 85, "L;4": 17}


def read_mask(path: str | Path, masks: Masks, size: tuple[int, int]) -> UInt8[Tensor, "H W"]:
    """The class of each pixel from 0 on, IGNORED where it has none.

    size: width and height of the image. Raises DataError, naming the file, for a mask that is missing, damaged, of
      another size, in colours instead of numbers, or with a number that is neither a class nor ignored.
    """
    numbers = _read_numbers(path, size, "a mask")
    table = np.full(MOST + 1, -1, dtype=np.int16)
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
    if numbers.min() < 0 or numbers.max() > MOST:
        raise DataError(f"{path}: numbers from {numbers.min()} to {numbers.max()}; wanted 0 to {MOST}")
    return numbers


def _as_stored(image: Image.Image) -> Image.Image:
    spread = _SPREAD.get(str(image.tile[0].args), 1) if isinstance(image, PngImageFile) else 1
    return image.copy() if spread == 1 else image.point([level // spread for level in range(256)])


def size_of(pixels: UInt8[Tensor, "3 H W"]) -> tuple[int, int]:
    """Width and height."""
    return pixels.shape[2], pixels.shape[1]
