"""Frozen networks, prepared once for what they do a million times.

The functions change the modules of the network they are given, never its parameters: give them a copy that shares the
parameters (`unic.models.share_weights.share_weights`), and the original stays what it is.
"""

from typing import Any

import torch
from jaxtyping import Float
from timm.layers.mlp import Mlp
from torch import Tensor, nn

from unic.kernels.gelu import is_exact_gelu
from unic.models.replace_modules import replace_modules

# Layers whose weights autocast rounds at every use: it remembers roundings of trained weights only.
_ROUNDED = (nn.Linear, nn.Conv1d, nn.Conv2d)


class PackedLinear(nn.Module):
    """A linear layer in bf16 on a CPU whose weight is laid out once as oneDNN's matmuls read it, not at every use.

    activation: "gelu" or "none", computed in the same pass before the result is rounded.
    """

    def __init__(self, linear: nn.Linear, activation: str):
        super().__init__()
        self.weight, self.bias = linear.weight, linear.bias
        self._packed: Tensor = torch.ops.mkldnn._reorder_linear_weight(linear.weight, None)
        self._activation = activation

    def forward(self, x: Float[Tensor, "*B D"]) -> Float[Tensor, "*B E"]:
        return torch.ops.mkldnn._linear_pointwise(
            x.to(torch.bfloat16), self._packed, self.bias, self._activation, [], "none"
        )


def cast_weights(network: nn.Module, dtype: torch.dtype) -> None:
    """Rounds the weights of linear layers and convolutions once; the output under autocast stays the same."""
    for module in network.modules():
        if isinstance(module, _ROUNDED):
            for name, parameter in list(module.named_parameters(recurse=False)):
                rounded = nn.Parameter(parameter.detach().to(dtype), requires_grad=False)
                setattr(module, name, rounded)


def prepack_weights(network: nn.Module) -> int:
    """Puts a `PackedLinear` in the place of every linear layer in bf16, where the processor has such matmuls; gives
    their number.

    After `cast_weights`. Matmuls keep their bits. The GELU of timm's MLPs moves into the matmul before it, and is no
    longer rounded in between.
    """
    operators: Any = torch.ops.mkldnn  # those that torch's own compiler calls
    if not (hasattr(operators, "_reorder_linear_weight") and operators._is_mkldnn_bf16_supported()):
        return 0
    before_gelu = set()
    for mlp in network.modules():
        if type(mlp) is Mlp and _is_packable(mlp.fc1) and is_exact_gelu(mlp.act):
            before_gelu.add(mlp.fc1)
            mlp.act = nn.Identity()

    def packed(module: Any) -> nn.Module | None:
        if not _is_packable(module):
            return None
        return PackedLinear(module, "gelu" if module in before_gelu else "none")

    return replace_modules(network, packed)


def _is_packable(module: nn.Module) -> bool:
    # Not a subclass: some are never called, only asked for their weight.
    return type(module) is nn.Linear and module.weight.dtype == torch.bfloat16
