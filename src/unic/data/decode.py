"""From a file to pixels, or to one error, BadImage.

Letters: H W pixels.
"""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from jaxtyping import UInt8
from PIL import Image, UnidentifiedImageError
from torch import Tensor

from unic.core.errors import DataError

MAX_PIXELS = 100_000_000


FORMATS = ("JPEG", "PNG", "WEBP", "BMP", "GIF", "PPM", "TIFF")


class BadImage(DataError):  # noqa: N818 (named for what it is about: BadImages counts them)
    """A file that cannot be turned into pixels; `reason` says why in a few words."""

    def __init__(self, path: str, reason: str):
        super().__init__(path, reason)  # the arguments of a copy made by pickle, on the way out of a worker
        self.path = path
        self.reason = reason

    def __str__(self) -> str:
        return f"{self.path}: {self.reason}"


def read_image(path: str | Path) -> Image.Image:
    """Decodes a file to RGB; the first frame of an animation.

    The EXIF orientation is ignored, as in the protocols of the paper. 16-bit grey keeps its upper 8 bits.
    Raises BadImage, and nothing else, for a file that is missing, damaged, cut short, too large or no image.
    """
    return open_image(path, to_rgb)


def read_pixels(path: str | Path) -> UInt8[Tensor, "3 H W"]:
    """`read_image` as a tensor."""
    return torch.from_numpy(np.array(read_image(path))).permute(2, 0, 1)  # (H, W, 3) -> (3, H, W)


def open_image(
    path: str | Path, convert: Callable[[Image.Image], Image.Image] = Image.Image.copy
) -> Image.Image:
    """Decodes a file, in the mode it is stored in unless `convert` makes another of it. Raises as `read_image`."""
    try:
        with Path(path).open("rb") as file, Image.open(file, formats=FORMATS) as image:
            if not 0 < image.width * image.height <= MAX_PIXELS:
                raise ValueError(f"{image.width} x {image.height} px; wanted 1 to {MAX_PIXELS} pixels")
            return convert(image)
    except UnidentifiedImageError as error:
        raise BadImage(str(path), f"not an image (wanted {', '.join(FORMATS)})") from error
    except FileNotFoundError as error:
        raise BadImage(str(path), "no such file") from error
    # Decoders raise whatever is at hand: OSError, SyntaxError, struct.error, KeyError, DecompressionBombError
    except Exception as error:
        reason = getattr(error, "strerror", None) or str(error) or type(error).__name__
        raise BadImage(str(path), reason) from error


def to_rgb(image: Image.Image) -> Image.Image:
    """Any mode as `read_image` gives it. Raises ValueError for pixels of more than 16 bits."""
    if image.mode == "F":
        raise ValueError("floating-point pixels; wanted 8 or 16 bits a channel")
    if image.mode.startswith("I"):
        # Pillow's own conversion clips 16-bit grey at 255, which turns nearly every picture white.
        pixels = np.asarray(image)
        if pixels.min() < 0 or pixels.max() > 0xFFFF:
            raise ValueError("32-bit pixels; wanted 8 or 16 bits a channel")
        return Image.fromarray((pixels >> 8).astype(np.uint8)).convert("RGB")
    if image.mode == "P" and "transparency" in image.info:
        image = image.convert("RGBA")  # the same colours; straight to RGB, Pillow warns
    return image.convert("RGB")


SAMPLE_NAMES = ("china.jpg", "flower.jpg")


def sample_photographs() -> list[Image.Image]:
    """Two photographs that come with scikit-learn: a Chinese palace and a flower, 640 x 427 pixels."""
    from sklearn.datasets import load_sample_images

    return [Image.fromarray(np.asarray(array)) for array in load_sample_images().images]
