"""The optimiser and its schedules. Source: UNIC, Sec. 4 and its released arguments."""

import math
from collections.abc import Iterable
from dataclasses import dataclass

import torch
from torch import nn

from unic.core.errors import ConfigError


@dataclass(frozen=True, kw_only=True)
class OptimConfig:
    """AdamW with linear warm-up and cosine decay."""

    batch_size: int = 512
    """Images a step over all processes and micro-batches."""
    epochs: float = 200.0
    warmup_epochs: float = 10.0
    """Linear warm-up before the cosine, in epochs."""
    lr: float = 3e-4
    """Peak learning rate for 256 images a step; scaled in proportion to batch_size."""
    min_lr: float = 1e-6
    """Learning rate at the end of the cosine, not scaled."""
    weight_decay: float = 0.03
    """On matrices; biases and other one-dimensional parameters have none."""
    betas: tuple[float, float] = (0.9, 0.99)
    max_grad_norm: float | None = None
    """Gradients are scaled down to this norm; None: never."""

    def __post_init__(self):
        if self.batch_size < 2:
            raise ConfigError(
                f"optim.batch_size must be at least 2 (a std needs two images), got {self.batch_size}"
            )
        if not (self.epochs > 0 and 0 <= self.warmup_epochs <= self.epochs):
            raise ConfigError(
                f"optim.epochs must be above 0 and warmup_epochs within it, got {self.epochs} and {self.warmup_epochs}"
            )
        if not (self.lr > 0 and 0 <= self.min_lr <= self.peak_lr and self.weight_decay >= 0):
            raise ConfigError(
                f"optim needs lr > 0, 0 <= min_lr <= lr * batch_size / 256 and weight_decay >= 0, got lr={self.lr}, "
                f"min_lr={self.min_lr}, weight_decay={self.weight_decay}"
            )
        if not all(0 <= beta < 1 for beta in self.betas):
            raise ConfigError(f"optim.betas must be in [0, 1), got {self.betas}")
        if self.max_grad_norm is not None and self.max_grad_norm <= 0:
            raise ConfigError(f"optim.max_grad_norm must be above 0, got {self.max_grad_norm}")

    @property
    def peak_lr(self) -> float:
        return self.lr * self.batch_size / 256

    def num_steps(self, steps_per_epoch: int) -> int:
        return max(1, round(self.epochs * steps_per_epoch))


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
