"""Frozen teachers, prepared once for what they do a million times."""

from functools import partial
from typing import Any

import torch
from jaxtyping import Float
from timm.layers.mlp import Mlp
from torch import Tensor, nn

from unic.kernels.gelu import is_exact_gelu

# Layers whose weights autocast rounds at every use: it remembers roundings of trained weights only.
_ROUNDED = (nn.Linear, nn.Conv1d, nn.Conv2d)


def cast_weights(model: nn.Module, dtype: torch.dtype) -> None:
    """Rounds the weights of products and convolutions once; what the model says under autocast to `dtype` stays the
    same. For frozen models: the unrounded weights are gone, and with them the model's fingerprint.
    """
    for module in model.modules():
        if isinstance(module, _ROUNDED):
            module.to(dtype)


def prepack_weights(model: nn.Module) -> int:
    """Lays weights in bf16 out once as the processor's products read them, instead of at every use; gives their number.

    For frozen models on a CPU, after `cast_weights`. Products keep their bits. The GELU of timm's MLPs moves into
    the product before it, and is no longer rounded in between.
    """
    operators: Any = (
        torch.ops.mkldnn
    )  # those that torch's own compiler calls; without them all stays as it is
    if not (hasattr(operators, "_reorder_linear_weight") and operators._is_mkldnn_bf16_supported()):
        return 0
    layers: list[Any] = [module for module in model.modules() if _is_packable(module)]
    mlps: list[Any] = [module for module in model.modules() if _has_gelu(module)]
    before_gelu = {mlp.fc1 for mlp in mlps}
    for layer in layers:
        packed = operators._reorder_linear_weight(layer.weight, None)
        layer.forward = partial(
            _packed_linear, packed, layer.bias, "gelu" if layer in before_gelu else "none"
        )
    for mlp in mlps:
        mlp.act = nn.Identity()
    return len(layers)


def _is_packable(module: nn.Module) -> bool:
    # Not a subclass: some are never called, only asked for their weight.
    return type(module) is nn.Linear and module.weight.dtype == torch.bfloat16


def _has_gelu(module: nn.Module) -> bool:
    return type(module) is Mlp and _is_packable(module.fc1) and is_exact_gelu(module.act)


def _packed_linear(
    packed: Tensor, bias: Tensor | None, activation: str, x: Float[Tensor, "*B D"]
) -> Float[Tensor, "*B E"]:
    x = x.to(torch.bfloat16)
    return torch.ops.mkldnn._linear_pointwise(x, packed, bias, activation, [], "none")
