"""Puts every teacher's features on one scale: (feature - mean) / std, with statistics that follow the data.

Letters: B images, N patches, E width, M tokens of one type.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor, nn

from unic.method.config import StatisticsConfig
from unic.method.types import Tokens, Widths

EPS = 1e-6


@dataclass(frozen=True)
class Moments:
    """Sums over tokens, centred on the running mean; those of micro-batches and processes simply add up.

    sums: rows CLS sum, CLS square sum, patch sum, patch square sum (widths padded with 0 to the larger one).
    """

    counts: Float[Tensor, "2"]
    sums: Float[Tensor, "4 E"]

    @staticmethod
    def sum(parts: Sequence["Moments"]) -> "Moments":
        return Moments(
            torch.stack([part.counts for part in parts]).sum(0),
            torch.stack([part.sums for part in parts]).sum(0),
        )


def standardize(
    x: Float[Tensor, "*B E"], mean: Float[Tensor, " E"], std: Float[Tensor, " E"], std_floor: float
) -> Float[Tensor, "*B E"]:
    """(x - mean) / std in float32; a std below `std_floor` times the median counts as that."""
    return (x - mean) / _divisor(std, std_floor)


def token_moments(tokens: Tokens, cls_mean: Float[Tensor, " E"], patch_mean: Float[Tensor, " F"]) -> Moments:
    """Counts and sums of the tokens of a batch. The square sums are about the running mean, so that a large mean beside
    a small std costs no precision.
    """
    flat = (tokens.cls.float() - cls_mean, tokens.patches.float().flatten(0, 1) - patch_mean)
    width = max(x.shape[1] for x in flat)
    rows = [row for x in flat for row in (x.sum(0), x.square().sum(0))]
    return Moments(
        torch.cat([x.new_full((1,), len(x)) for x in flat]),
        torch.stack([nn.functional.pad(row, (0, width - len(row))) for row in rows]),
    )


@dataclass(frozen=True)
class StatisticsKernels:
    """The functions behind a Standardizer: the definitions, or compiled ones."""

    standardize: Callable[..., Tensor] = standardize
    token_moments: Callable[..., Moments] = token_moments


EXACT_STATISTICS = StatisticsKernels()


class Standardizer(nn.Module):
    """Running mean and std of one teacher's CLS and patch tokens."""

    cls_mean: Tensor
    cls_std: Tensor
    patch_mean: Tensor
    patch_std: Tensor

    def __init__(self, widths: Widths, cfg: StatisticsConfig, kernels: StatisticsKernels = EXACT_STATISTICS):
        super().__init__()
        self.cfg = cfg
        self._kernels = kernels
        for kind, width in (("cls", widths.cls), ("patch", widths.patches)):
            self.register_buffer(f"{kind}_mean", torch.zeros(width))
            self.register_buffer(f"{kind}_std", torch.ones(width))

    def forward(self, tokens: Tokens) -> Tokens:
        """Standardised tokens, in float32, by the statistics as they stand."""
        if self.cfg.kind == "none":
            return tokens.float()
        standardize, floor = self._kernels.standardize, self.cfg.std_floor
        return Tokens(
            standardize(tokens.cls, self.cls_mean, self.cls_std, floor),
            standardize(tokens.patches, self.patch_mean, self.patch_std, floor),
        )

    def inverse(self, tokens: Tokens) -> Tokens:
        """Standardised tokens back in the teacher's own scale: undoes `forward`."""
        if self.cfg.kind == "none":
            return tokens.float()
        floor = self.cfg.std_floor
        return Tokens(
            tokens.cls * _divisor(self.cls_std, floor) + self.cls_mean,
            tokens.patches * _divisor(self.patch_std, floor) + self.patch_mean,
        )

    def moments(self, tokens: Tokens) -> Moments:
        """What this batch says about the statistics."""
        return self._kernels.token_moments(tokens, self.cls_mean, self.patch_mean)

    def update(self, moments: Moments, rate: float | Tensor) -> None:
        """Moves the statistics towards a batch's by `rate`: in [0, 1]; 1 replaces, 0 keeps.

        Called after `forward`, so a batch is never scaled by itself. The std of a batch is unbiased plus 1e-6, and
        the std is averaged rather than the variance, as published.
        """
        if self.cfg.kind == "none":
            return
        for row, (mean, std) in enumerate(((self.cls_mean, self.cls_std), (self.patch_mean, self.patch_std))):
            count = moments.counts[row].double()
            total, squares = moments.sums[2 * row : 2 * row + 2, : len(mean)].double()
            shift = total / count
            variance = (squares - total * shift).clamp(min=0) / (count - 1).clamp(min=1)
            mean += rate * shift  # the moments are centred on the old mean, so this is rate * (batch - old)
            std += rate * (variance.sqrt() + EPS - std)


def _divisor(std: Float[Tensor, " E"], std_floor: float) -> Float[Tensor, " E"]:
    return std.clamp(min=std_floor * std.median()) + EPS
