"""The ladder of projectors for accelerators, in few large products.

The first layers of all teachers on a block are one product, and the second layers of all blocks for a teacher are one:
both sums of the ladder, over blocks and (of the gradient) over teachers, then happen in the product's accumulator.
96 small products forward and 192 backward become 16 and 32 for UNIC-B, for CLS and patches each.

Letters: B images, N tokens of an image, M = B N rows, D E widths, L blocks, T teachers, h hidden width of a block, K =
sum of h over blocks.
"""

from collections.abc import Sequence
from itertools import accumulate
from typing import Any

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from unic.core.torch_compile import compiled
from unic.kernels.gelu import fast_gelu, fast_gelu_backward
from unic.models.ladder import Mlp


def sums_of_mlps(
    mlps: Sequence[Sequence[Mlp]], inputs: Sequence[Float[Tensor, "B N D"]]
) -> Sequence[Float[Tensor, "B N E"]]:
    """For each teacher the sum of its MLPs' outputs. mlps: of each teacher, those on the inputs in their order."""
    return _SumsOfMlps.apply(
        len(inputs), *inputs, *(p for of_teacher in mlps for p in parameters_of(of_teacher))
    )


def parameters_of(mlps: Sequence[Mlp]) -> list[Tensor]:
    """Weight and bias of both layers of each MLP."""
    layers: list[Any] = [layer for mlp in mlps for layer in (mlp.layers[0], mlp.layers[2])]
    return [parameter for layer in layers for parameter in (layer.weight, layer.bias)]


class _SumsOfMlps(torch.autograd.Function):
    """(L, L inputs, weight and bias of both layers of L MLPs of T teachers) -> T outputs."""

    @staticmethod
    def forward(ctx: Any, num_blocks: int, *tensors: Tensor) -> tuple[Tensor, ...]:
        inputs, parameters = tensors[:num_blocks], tensors[num_blocks:]
        device, dtype, shape = inputs[0].device, inputs[0].dtype, inputs[0].shape[:2]
        # Row t, column l of each: of teacher t on block l.
        first, first_bias, second, second_bias = (
            _rows_of(parameters[part::4], num_blocks) for part in range(4)
        )
        firsts = [torch.cat(of_block).to(dtype) for of_block in zip(*first, strict=True)]  # L of (T h, D)
        first_biases = [torch.cat(of_block).to(dtype) for of_block in zip(*first_bias, strict=True)]
        seconds = [torch.cat(of_teacher, dim=1).to(dtype) for of_teacher in second]  # T of (E, K)
        widths = [len(weight) for weight in first[0]]
        inputs = [x.flatten(0, 1) for x in inputs]
        hidden = torch.empty(len(first), len(inputs[0]), sum(widths), dtype=dtype, device=device)  # (T, M, K)
        before = []
        with torch.autocast(device.type, enabled=False):
            for x, weight, bias, part in zip(
                inputs, firsts, first_biases, _parts(hidden, widths), strict=True
            ):
                before.append(F.linear(x, weight, bias).unflatten(1, (len(first), -1)))  # (M, T, h)
                compiled(_activate)(before[-1], part)
            outputs = tuple(
                F.linear(of_teacher, weight, torch.stack(biases).sum(0).to(dtype)).unflatten(0, shape)
                for of_teacher, weight, biases in zip(hidden, seconds, second_bias, strict=True)
            )
        ctx.save_for_backward(*inputs, *before, *firsts, hidden, *seconds)
        ctx.widths, ctx.parameter_type = widths, parameters[0].dtype
        ctx.set_materialize_grads(False)
        return outputs

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor | None) -> tuple[Tensor | None, ...]:  # pyright: ignore[reportIncompatibleMethodOverride]
        widths, num_blocks, num_teachers = ctx.widths, len(ctx.widths), len(gradients)
        saved = ctx.saved_tensors
        inputs, before, firsts = (saved[part * num_blocks : (part + 1) * num_blocks] for part in range(3))
        hidden, *seconds = saved[3 * num_blocks :]
        given = next((gradient for gradient in gradients if gradient is not None), None)
        if given is None:  # this token type has no loss
            return (None,) * (1 + num_blocks + 4 * num_blocks * num_teachers)
        images, num_tokens = given.shape[:2]
        of_hidden = torch.empty_like(hidden)
        of_seconds, of_second_bias = [], []
        for gradient, weight, h, of_h in zip(gradients, seconds, hidden, of_hidden, strict=True):
            rows = (
                h.new_zeros(len(h), len(weight)) if gradient is None else gradient.flatten(0, 1).to(h.dtype)
            )
            torch.mm(rows, weight, out=of_h)
            # Views of larger tensors are fine as gradients: autograd copies those that are not laid out as parameters.
            of_seconds.append([part.to(ctx.parameter_type) for part in (rows.T @ h).split(widths, dim=1)])
            of_second_bias.append(rows.sum(0, dtype=torch.float32).to(ctx.parameter_type))
        of_inputs, of_firsts, of_first_biases = [], [], []
        for x, z, weight, part in zip(inputs, before, firsts, _parts(of_hidden, widths), strict=True):
            of_z = compiled(_activate_backward)(part, z).flatten(1)  # (M, T h)
            of_inputs.append((of_z @ weight).unflatten(0, (images, num_tokens)))
            of_first = (of_z.T @ x).to(ctx.parameter_type).unflatten(0, (num_teachers, -1))
            of_firsts.append(of_first.unbind())
            of_first_bias = of_z.sum(0, dtype=torch.float32).to(ctx.parameter_type)
            of_first_biases.append(of_first_bias.unflatten(0, (num_teachers, -1)).unbind())
        of_parameters = [
            of_parameter
            for teacher in range(num_teachers)
            for block in range(num_blocks)
            for of_parameter in (
                of_firsts[block][teacher],
                of_first_biases[block][teacher],
                of_seconds[teacher][block],
                of_second_bias[teacher],
            )
        ]
        return None, *of_inputs, *of_parameters


def _activate(before: Float[Tensor, "M T h"], hidden: Float[Tensor, "T M h"]) -> None:
    """Writes to `hidden`, which is a part of a larger tensor."""
    hidden.copy_(fast_gelu(before).transpose(0, 1))


def _activate_backward(
    of_hidden: Float[Tensor, "T M h"], before: Float[Tensor, "M T h"]
) -> Float[Tensor, "M T h"]:
    """The gradient before the activation."""
    return fast_gelu_backward(of_hidden.transpose(0, 1), before).contiguous()


def _parts(hidden: Float[Tensor, "T M K"], widths: Sequence[int]) -> list[Float[Tensor, "T M h"]]:
    """Those of each block."""
    return [hidden[:, :, end - width : end] for width, end in zip(widths, accumulate(widths), strict=True)]


def _rows_of(parameters: tuple[Tensor, ...], length: int) -> list[tuple[Tensor, ...]]:
    return [parameters[start : start + length] for start in range(0, len(parameters), length)]
