"""The photometric part of a view, on whole batches and on their device: jitter, grayscale, blur, solarize.

Letters: B images of a batch, H W pixels.
"""

from collections.abc import Callable
from typing import Literal

import torch
from jaxtyping import Int64, UInt8
from torch import Tensor

from unic.core import keyed_random
from unic.data.color_jitter.cpu import color_jitter_cpu
from unic.data.color_jitter.exact import Photometric, color_jitter
from unic.data.color_jitter.gpu import color_jitter_gpu
from unic.data.config import ViewConfig
from unic.method.types import Batch

ColorJitter = Callable[[UInt8[Tensor, "B 3 H W"], Photometric, ViewConfig], UInt8[Tensor, "B 3 H W"]]
"""A function like `color_jitter`."""


def choose_color_jitter(
    cfg: ViewConfig, device: torch.device, kernels: Literal["exact", "fast"]
) -> ColorJitter:
    """On a CPU cfg.pixels decides; on an accelerator `kernels`: all images at once in compiled operations, or not."""
    if device.type == "cpu":
        return color_jitter if cfg.pixels == "exact" else color_jitter_cpu
    return color_jitter if kernels == "exact" else color_jitter_gpu


def augment(
    batch: Batch, seed: int, cfg: ViewConfig, device: torch.device, color_jitter: ColorJitter = color_jitter
) -> Batch:
    """Moves a batch to `device` and changes the colours of every image there, as (seed, view, index) say.

    Give it the batch as it comes from the loader, on the CPU: its view and index are needed here, and asking
    a device for them would make this process wait.
    """
    parameters = photometric_parameters(batch.view.cpu(), batch.index.cpu(), seed, cfg)
    batch = batch.to(device)
    return Batch(color_jitter(batch.images, parameters, cfg), batch.index, batch.view)


def photometric_parameters(
    view: Int64[Tensor, " B"], index: Int64[Tensor, " B"], seed: int, cfg: ViewConfig
) -> Photometric:
    draws = keyed_random.uniforms(seed, "photometric", view, index, 13)
    strengths = torch.tensor(cfg.jitter)
    centre = torch.tensor([1.0, 1.0, 1.0, 0.0])
    low = torch.cat([(centre - strengths)[:3].clamp(min=0), -strengths[3:]])
    low_sigma, high_sigma = cfg.blur_sigma
    return Photometric(
        jitters=draws[:, 0] < cfg.jitter_prob,
        order=draws[:, 1:5].argsort(dim=1),
        factors=low + (centre + strengths - low) * draws[:, 5:9],
        grays=draws[:, 9] < cfg.grayscale_prob,
        blurs=draws[:, 10] < cfg.blur_prob,
        sigma=low_sigma + (high_sigma - low_sigma) * draws[:, 11],
        solarizes=draws[:, 12] < cfg.solarize_prob,
    )
