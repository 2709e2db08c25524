"""GELU for accelerators: erf as a polynomial and one exponential.

The library's erf takes more arithmetic than there is time for while features come from memory. This one is off by at
most 1.5e-7, about one float32 step at 1. Source: Abramowitz and Stegun, Handbook of Mathematical Functions, 7.1.26.
"""

import math
from typing import Any

import torch
from jaxtyping import Float
from timm.layers.activations import GELU
from torch import Tensor, nn

from unic.models.replace_modules import replace_modules

_P = 0.3275911
_COEFFICIENTS = (1.061405429, -1.453152027, 1.421413741, -0.284496736, 0.254829592)


class FastGelu(nn.Module):
    """`nn.GELU()`, with its gradient written down; to be called from compiled code."""

    def forward(self, x: Float[Tensor, "*B D"]) -> Float[Tensor, "*B D"]:
        return _Gelu.apply(x)


def fast_gelu(x: Float[Tensor, "*B D"]) -> Float[Tensor, "*B D"]:
    exact = _exact(x)
    return (exact * _normal(exact)[0]).to(x.dtype)


def fast_gelu_backward(grad_output: Float[Tensor, "*B D"], x: Float[Tensor, "*B D"]) -> Float[Tensor, "*B D"]:
    """The gradient of the input, from that of the output."""
    exact = _exact(x)
    below, bell = _normal(exact)
    return (grad_output * (below + exact * bell / math.sqrt(2 * math.pi))).to(x.dtype)


def replace_gelu(model: nn.Module) -> int:
    """Puts `FastGelu` in the place of every exact GELU that is a module; gives their number."""
    return replace_modules(model, lambda module: FastGelu() if is_exact_gelu(module) else None)


def is_exact_gelu(module: nn.Module) -> bool:
    return type(module) is GELU or (type(module) is nn.GELU and module.approximate == "none")


class _Gelu(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        ctx.save_for_backward(x)
        return fast_gelu(x)

    @staticmethod
    def backward(ctx: Any, grad_output: Tensor) -> Tensor:  # pyright: ignore[reportIncompatibleMethodOverride]
        (x,) = ctx.saved_tensors
        return fast_gelu_backward(grad_output, x)


def _exact(x: Float[Tensor, "*B D"]) -> Float[Tensor, "*B D"]:
    return x.to(torch.promote_types(x.dtype, torch.float32))


def _normal(x: Float[Tensor, "*B D"]) -> tuple[Float[Tensor, "*B D"], Float[Tensor, "*B D"]]:
    """The share of the normal distribution below x, and exp(-x^2 / 2)."""
    bell = torch.exp(-0.5 * x * x)
    t = 1 / (1 + _P / math.sqrt(2) * x.abs())
    polynomial = torch.full_like(t, _COEFFICIENTS[0])
    for coefficient in _COEFFICIENTS[1:]:
        polynomial = polynomial * t + coefficient
    beyond = 0.5 * polynomial * t * bell  # above |x|
    return torch.where(x < 0, beyond, 1 - beyond), bell
