"""The geometric part of a view, random_resized_crop on the CPU: a pure function of (seed, view, image index).

Letters: B images, S side of the view in pixels. The photometric part is in photometric.py.
"""

import math
from collections.abc import Sequence

import numpy as np
import torch
from jaxtyping import Float, Int64, UInt8
from PIL import Image
from torch import Tensor

from unic.core import keyed_random
from unic.data.config import ViewConfig

_ATTEMPTS = 10

# Beyond this aspect ratio the resized image would hold mostly pixels that the centre crop throws away.
_MAX_RATIO = 50


def training_view(
    image: Image.Image, seed: int, view: int, index: int, cfg: ViewConfig
) -> UInt8[Tensor, "3 S S"]:
    """A random crop, resized to a square and perhaps flipped; the same whenever it is asked for."""
    draws = geometric_draws(seed, torch.tensor([view]), torch.tensor([index]))
    return random_resized_crop(image, draws[0].tolist(), cfg)


def geometric_draws(
    seed: int, view: Int64[Tensor, " B"], index: Int64[Tensor, " B"]
) -> Float[Tensor, "B 23"]:
    """What `random_resized_crop` needs for each image; of a batch at once: hashing one key costs as much as many."""
    return keyed_random.uniforms(seed, "geometric", view, index, 2 * _ATTEMPTS + 3)


def random_resized_crop(
    image: Image.Image, draws: Sequence[float], cfg: ViewConfig
) -> UInt8[Tensor, "3 S S"]:
    """draws: those of `crop_box`, then one for the flip."""
    left, top, width, height = crop_box(*image.size, draws[:-1], cfg)
    crop = image.crop((left, top, left + width, top + height))
    crop = crop.resize((cfg.image_size, cfg.image_size), Image.Resampling.BICUBIC)
    if draws[-1] < cfg.flip:
        crop = crop.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
    return _to_tensor(crop)


def evaluation_view(image: Image.Image, image_size: int) -> UInt8[Tensor, "3 S S"]:
    """The short side resized to `image_size`, then the square at the centre."""
    image = _without_far_ends(image)
    width, height = image.size
    short, long = min(width, height), max(width, height)
    resized = int(image_size * long / short)
    size = (image_size, resized) if width <= height else (resized, image_size)
    if size != image.size:
        image = image.resize(size, Image.Resampling.BICUBIC)
    # round() goes to the even neighbour at .5, here and in torchvision's CenterCrop.
    left, top = round((size[0] - image_size) / 2), round((size[1] - image_size) / 2)
    return _to_tensor(image.crop((left, top, left + image_size, top + image_size)))


def crop_box(width: int, height: int, draws: Sequence[float], cfg: ViewConfig) -> tuple[int, int, int, int]:
    """Left, top, width and height of a crop distributed as torchvision's RandomResizedCrop.

    draws: uniform in [0, 1); area and aspect ratio of each of 10 attempts, then left and top.
    """
    log_ratio = math.log(cfg.ratio[0]), math.log(cfg.ratio[1])
    for attempt in range(_ATTEMPTS):
        area = width * height * _between(*cfg.scale, draws[2 * attempt])
        ratio = math.exp(_between(*log_ratio, draws[2 * attempt + 1]))
        w, h = round(math.sqrt(area * ratio)), round(math.sqrt(area / ratio))
        if 0 < w <= width and 0 < h <= height:
            left, top = draws[2 * _ATTEMPTS :]
            return int(left * (width - w + 1)), int(top * (height - h + 1)), w, h
    # The image is too narrow for all ten: the largest crop of an allowed ratio at its centre.
    w, h = width, height
    if width / height < cfg.ratio[0]:
        h = round(width / cfg.ratio[0])
    elif width / height > cfg.ratio[1]:
        w = round(height * cfg.ratio[1])
    return (width - w) // 2, (height - h) // 2, w, h


def _between(low: float, high: float, draw: float) -> float:
    return low + (high - low) * draw


def _without_far_ends(image: Image.Image) -> Image.Image:
    width, height = image.size
    kept_width, kept_height = min(width, _MAX_RATIO * height), min(height, _MAX_RATIO * width)
    if (kept_width, kept_height) == image.size:
        return image
    left, top = (width - kept_width) // 2, (height - kept_height) // 2
    return image.crop((left, top, left + kept_width, top + kept_height))


def _to_tensor(image: Image.Image) -> UInt8[Tensor, "3 S S"]:
    return torch.from_numpy(np.array(image)).permute(2, 0, 1).contiguous()  # (S, S, 3) -> (3, S, S)
