"""`color_jitter` for accelerators: every image goes through every operation and takes the one that is its own.

Arithmetic costs less there than passing over memory for each group of images.

Letters: B images of a batch, H W pixels.
"""

import torch
from jaxtyping import Bool, Float32, Int64, UInt8
from torch import Tensor

from unic.core.to_device import to_device
from unic.core.torch_compile import compiled
from unic.data.color_jitter.exact import JITTERS, Photometric, blur_some, grayscale, solarize
from unic.data.config import ViewConfig


def color_jitter_gpu(
    images: UInt8[Tensor, "B 3 H W"], parameters: Photometric, cfg: ViewConfig
) -> UInt8[Tensor, "B 3 H W"]:
    """What `color_jitter` gives, to one grey level."""
    order = parameters.order.where(parameters.jitters[:, None], len(JITTERS))  # which is none of them
    numbers = (order, parameters.factors, parameters.grays, parameters.solarizes)
    order, factors, grays, solarizes = (to_device(x, images.device) for x in numbers)
    pixels = compiled(_colours)(images, order, factors, grays)
    blur_some(pixels, parameters, cfg)
    return compiled(_in_bytes)(pixels, solarizes, cfg.solarize_threshold)


def _colours(
    images: UInt8[Tensor, "B 3 H W"],
    order: Int64[Tensor, "B 4"],
    factors: Float32[Tensor, "B 4"],
    grays: Bool[Tensor, " B"],
) -> Float32[Tensor, "B 3 H W"]:
    pixels = images.float() / 255
    for chosen in order.unbind(1):
        changed = pixels
        for number, jitter in enumerate(JITTERS):
            here = (chosen == number)[:, None, None, None]
            changed = jitter(pixels, factors[:, number]).where(here, changed)
        pixels = changed
    return grayscale(pixels).where(grays[:, None, None, None], pixels)


def _in_bytes(
    pixels: Float32[Tensor, "B 3 H W"], solarizes: Bool[Tensor, " B"], threshold: float
) -> UInt8[Tensor, "B 3 H W"]:
    pixels = solarize(pixels, threshold).where(solarizes[:, None, None, None], pixels)
    return (pixels * 255).round().to(torch.uint8)
