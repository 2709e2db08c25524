"""The optimiser and its schedules. Source: UNIC, Sec. 4 and its released arguments."""

import math
from collections.abc import Iterable

import torch
from torch import nn

from unic.train.recipe import OptimConfig


def learning_rate(step: int, cfg: OptimConfig, steps_per_epoch: int) -> float:
    """Rises linearly over the warm-up, then falls to min_lr along a half cosine. step: from 0."""
    warmup = round(cfg.warmup_epochs * steps_per_epoch)
    if step < warmup:
        return cfg.peak_lr * (step + 1) / warmup
    return cosine(step - warmup, cfg.num_steps(steps_per_epoch) - warmup, cfg.peak_lr, cfg.min_lr)


def cosine(step: int, num_steps: int, start: float, end: float) -> float:
    """From start (step 0) to end (step num_steps) along a half cosine."""
    return end + (start - end) * (1 + math.cos(math.pi * step / max(num_steps, 1))) / 2


def build_optimizer(
    named_parameters: Iterable[tuple[str, nn.Parameter]], cfg: OptimConfig
) -> torch.optim.AdamW:
    """AdamW over the parameters that require gradients, in two groups: with and without weight decay."""
    decayed, plain = [], []
    for name, parameter in named_parameters:
        if parameter.requires_grad:
            (plain if parameter.ndim <= 1 or name.endswith(".bias") else decayed).append(parameter)
    groups = [{"params": decayed, "weight_decay": cfg.weight_decay}, {"params": plain, "weight_decay": 0.0}]
    return torch.optim.AdamW(groups, lr=cfg.peak_lr, betas=cfg.betas, fused=True)
