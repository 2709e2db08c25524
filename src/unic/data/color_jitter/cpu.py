"""`color_jitter` for processors: one image at a time, in place, so that its pixels never leave the cache.

Letters: H W pixels. Every operation is that of exact.py in other words: a processor has
no vector form of `where`, `remainder` and float -> uint8, which were most of the time.
"""

from collections.abc import Callable

import torch
import torch.nn.functional as F
from jaxtyping import Float, UInt8
from torch import Tensor

from unic.data.color_jitter.exact import LUMA, Photometric
from unic.data.config import ViewConfig


def color_jitter_cpu(
    images: UInt8[Tensor, "B 3 H W"], parameters: Photometric, cfg: ViewConfig
) -> UInt8[Tensor, "B 3 H W"]:
    """What `color_jitter` gives, to one grey level (float32 rounds otherwise in another order of the same sums)."""
    recoloured = torch.empty_like(images)
    x = torch.empty(images.shape[1:])
    facts = zip(
        parameters.jitters.tolist(),
        parameters.order.tolist(),
        parameters.factors.tolist(),
        parameters.grays.tolist(),
        parameters.blurs.tolist(),
        parameters.sigma.tolist(),
        parameters.solarizes.tolist(),
        strict=True,
    )
    for number, (jitters, order, factors, grays, blurs, sigma, solarizes) in enumerate(facts):
        if not (jitters or grays or blurs or solarizes):
            recoloured[number] = images[number]
            continue
        x.copy_(images[number]).div_(255)
        if jitters:
            for operation in order:
                _JITTERS[operation](x, factors[operation])
        if grays:
            x.copy_(_gray(x))
        if blurs:
            _blur(x, sigma, cfg.blur_kernel)
        if solarizes:
            _solarize(x, cfg.solarize_threshold)
        recoloured[number] = x.mul_(255).round_().to(torch.int16)
    return recoloured


def _brightness(x: Float[Tensor, "3 H W"], factor: float) -> None:
    x.mul_(factor).clamp_(0, 1)


def _contrast(x: Float[Tensor, "3 H W"], factor: float) -> None:
    mean = _gray(x).mean()
    x.mul_(factor).add_(mean, alpha=1 - factor).clamp_(0, 1)


def _saturation(x: Float[Tensor, "3 H W"], factor: float) -> None:
    gray = _gray(x)
    x.mul_(factor).add_(gray, alpha=1 - factor).clamp_(0, 1)


def _hue(x: Float[Tensor, "3 H W"], factor: float) -> None:
    r, g, b = x
    value = torch.maximum(r, g).clamp_(min=b)
    chroma = value - torch.minimum(r, g).clamp_(max=b)
    # In sixths of a turn: red's third where red is largest, else green's or blue's. `eq` into floats and `lerp`
    # are `where` by vectors. Where two are largest their formulas agree.
    is_largest = torch.empty_like(value)
    torch.eq(value, g, out=is_largest)
    per_chroma = chroma.clamp(min=1e-12).reciprocal_()
    sector = (r - g).mul_(per_chroma).add_(4)
    sector.lerp_((b - r).mul_(per_chroma).add_(2), is_largest)
    torch.eq(value, r, out=is_largest)
    sector.lerp_((g - b).mul_(per_chroma), is_largest)
    sector.add_(6 * factor)
    turns = torch.empty_like(sector)
    for channel, offset in zip((r, g, b), (3, 1, -1), strict=True):
        # min(k, 4 - k) of k = sector + offset + 2 in turns of 6 is 2 - (distance of k from 2), at most 3 away.
        torch.add(sector, offset, out=channel)
        torch.mul(channel, 1 / 6, out=turns).round_()
        channel.sub_(turns, alpha=6).abs_().neg_().add_(2).clamp_(0, 1)
        torch.addcmul(value, channel, chroma, value=-1, out=channel)


def _blur(x: Float[Tensor, "3 H W"], sigma: float, kernel: int) -> None:
    half = kernel // 2
    distance = torch.arange(-half, half + 1, dtype=x.dtype)
    weights = torch.softmax(-0.5 * (distance / sigma) ** 2, dim=0).tolist()
    _, height, width = x.shape
    wide = F.pad(x, (half, half, 0, 0), mode="reflect")
    _weighted_sum(x, lambda k: wide[:, :, k : k + width], weights)
    high = F.pad(x, (0, 0, half, half), mode="reflect")
    _weighted_sum(x, lambda k: high[:, k : k + height], weights)


def _solarize(x: Float[Tensor, "3 H W"], threshold: float) -> None:
    inverted = torch.empty_like(x)
    torch.ge(x, threshold, out=inverted)
    x.lerp_(1 - x, inverted)


_JITTERS: tuple[Callable[[Tensor, float], None], ...] = (_brightness, _contrast, _saturation, _hue)


def _weighted_sum(x: Tensor, shifted: Callable[[int], Tensor], weights: list[float]) -> None:
    torch.mul(shifted(0), weights[0], out=x)
    for k, weight in enumerate(weights[1:], start=1):
        x.add_(shifted(k), alpha=weight)


def _gray(x: Float[Tensor, "3 H W"]) -> Float[Tensor, "H W"]:
    return (x[0] * LUMA[0]).add_(x[1], alpha=LUMA[1]).add_(x[2], alpha=LUMA[2])
