"""Colours and sharpness of views changed, each image's by numbers of its own.

Every operation is torchvision's on float images (a test holds them together), with one factor an image.
Letters: B images of a batch, G images of a group that shares an operation, H W pixels.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Float32, Int64, UInt8
from torch import Tensor

from unic.core.to_device import to_device
from unic.data.config import ViewConfig

LUMA = (0.2989, 0.587, 0.114)


@dataclass(frozen=True)
class Photometric:
    """What happens to each image of a batch; on the CPU, so that grouping images never waits for the device.

    order: which of `JITTERS` comes first, second, third, fourth.
    factors: one for each of `JITTERS`, in their order.
    sigma: of the Gaussian, in pixels.
    """

    jitters: Bool[Tensor, " B"]
    order: Int64[Tensor, "B 4"]
    factors: Float32[Tensor, "B 4"]
    grays: Bool[Tensor, " B"]
    blurs: Bool[Tensor, " B"]
    sigma: Float32[Tensor, " B"]
    solarizes: Bool[Tensor, " B"]


def color_jitter(
    images: UInt8[Tensor, "B 3 H W"], parameters: Photometric, cfg: ViewConfig
) -> UInt8[Tensor, "B 3 H W"]:
    """Colour jitter (four operations in an order of its own for each image), grayscale, blur, solarize."""
    pixels = images.float().div_(255)
    for place in range(4):
        for number, jitter in enumerate(JITTERS):
            chosen = parameters.jitters & (parameters.order[:, place] == number)
            _change(pixels, chosen, jitter, parameters.factors[:, number])
    sigma = parameters.sigma
    _change(pixels, parameters.grays, lambda group, _: grayscale(group), sigma)
    blur_some(pixels, parameters, cfg)
    _change(pixels, parameters.solarizes, lambda group, _: solarize(group, cfg.solarize_threshold), sigma)
    return pixels.mul_(255).round_().to(torch.uint8)


def adjust_brightness(x: Float[Tensor, "G 3 H W"], factor: Float[Tensor, " G"]) -> Float[Tensor, "G 3 H W"]:
    return (x * _per_image(factor)).clamp_(0, 1)


def adjust_contrast(x: Float[Tensor, "G 3 H W"], factor: Float[Tensor, " G"]) -> Float[Tensor, "G 3 H W"]:
    return _mix(x, _gray(x).mean(dim=(1, 2, 3), keepdim=True), factor)


def adjust_saturation(x: Float[Tensor, "G 3 H W"], factor: Float[Tensor, " G"]) -> Float[Tensor, "G 3 H W"]:
    return _mix(x, _gray(x), factor)


def adjust_hue(x: Float[Tensor, "G 3 H W"], factor: Float[Tensor, " G"]) -> Float[Tensor, "G 3 H W"]:
    """Turns the hue by `factor` of a full turn; chroma and value stay, so saturation is never computed."""
    r, g, b = x.unbind(dim=1)
    value = torch.maximum(torch.maximum(r, g), b)  # on a CPU 10 times faster than x.aminmax(dim=1)
    chroma = value - torch.minimum(torch.minimum(r, g), b)
    # Hue in sixths of a turn. Where chroma is 0 any finite hue does: it is multiplied by 0 below.
    per_chroma = 1 / chroma.clamp(min=1e-12)
    sector = torch.where(
        value == r,
        (g - b) * per_chroma,
        torch.where(value == g, (b - r) * per_chroma + 2, (r - g) * per_chroma + 4),
    )
    sector += 6 * factor[:, None, None]
    turned = []
    for offset in (5, 3, 1):  # red, green, blue
        k = (sector + offset).remainder_(6)
        turned.append(value - chroma * torch.minimum(k, 4 - k).clamp_(0, 1))
    return torch.stack(turned, dim=1)


def blur(x: Float[Tensor, "G 3 H W"], sigma: Float[Tensor, " G"], kernel: int) -> Float[Tensor, "G 3 H W"]:
    """Gaussian blur in two passes of one dimension; the border is reflected."""
    half = kernel // 2
    distance = torch.arange(-half, half + 1, device=x.device, dtype=x.dtype)
    weights = torch.softmax(-0.5 * (distance / sigma[:, None]) ** 2, dim=1)
    weights = weights.repeat_interleave(3, dim=0)[:, None, None]  # (G, k) -> (3G, 1, 1, k)
    planes = F.pad(x, (half,) * 4, mode="reflect").flatten(0, 1)[
        None
    ]  # (G, 3, H, W) -> (1, 3G, H + 2, W + 2)
    planes = F.conv2d(planes, weights, groups=planes.shape[1])
    planes = F.conv2d(planes, weights.transpose(2, 3), groups=planes.shape[1])
    return planes[0].unflatten(0, (-1, 3))


def blur_some(pixels: Float[Tensor, "B 3 H W"], parameters: Photometric, cfg: ViewConfig) -> None:
    """Blurs the images that `parameters` says, in place."""
    operation = partial(blur, kernel=cfg.blur_kernel)
    _change(pixels, parameters.blurs, operation, parameters.sigma)


def grayscale(x: Float[Tensor, "G 3 H W"]) -> Float[Tensor, "G 3 H W"]:
    return _gray(x).expand_as(x)


def solarize(x: Float[Tensor, "G 3 H W"], threshold: float) -> Float[Tensor, "G 3 H W"]:
    return torch.where(x >= threshold, 1 - x, x)


JITTERS = (adjust_brightness, adjust_contrast, adjust_saturation, adjust_hue)


def _change(
    pixels: Float[Tensor, "B 3 H W"],
    chosen: Bool[Tensor, " B"],
    operation: Callable[[Tensor, Tensor], Tensor],
    values: Float[Tensor, " B"],
) -> None:
    """Replaces the chosen images by `operation(images, their values)`, in place."""
    rows = chosen.nonzero()[:, 0]
    if len(rows):
        there = to_device(rows, pixels.device)
        pixels[there] = operation(pixels[there], to_device(values[rows], pixels.device))


def _gray(x: Float[Tensor, "G 3 H W"]) -> Float[Tensor, "G 1 H W"]:
    r, g, b = x.split(1, dim=1)
    return (LUMA[0] * r).add_(g, alpha=LUMA[1]).add_(b, alpha=LUMA[2])


def _mix(x: Tensor, other: Tensor, factor: Float[Tensor, " G"]) -> Float[Tensor, "G 3 H W"]:
    return torch.lerp(other, x, _per_image(factor)).clamp_(0, 1)


def _per_image(factor: Float[Tensor, " G"]) -> Float[Tensor, "G 1 1 1"]:
    return factor[:, None, None, None]
