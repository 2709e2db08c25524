"""The ladder of projectors without the work that its definition repeats, or does for nothing.

This is the form for processors; that for accelerators is in ladder_gpu.py.

Tokens are rounded once for all teachers, blocks are summed in the product itself, hidden layers are computed again
instead of kept, and in the backward pass images that teacher dropping left out (their gradient is zero) take part in
no product: with four teachers and a drop probability of 0.5, three in eight.

Letters: B images, N tokens of an image, M tokens of all images, D E widths, L blocks.
"""

from collections.abc import Sequence
from typing import Any, cast

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int64
from torch import Tensor

from unic.kernels.ladder_gpu import parameters_of, sums_of_mlps
from unic.method.types import Tokens
from unic.models.ladder import Ladder, Mlp


def fast_ladder(ladder: Ladder, blocks: Sequence[Tokens]) -> dict[str, Tokens]:
    """`ladder(blocks)`. Projectors of one matrix have nothing to share; they are left to the ladder itself."""
    heads = cast(Any, ladder.heads)
    if not all(isinstance(projector, Mlp) for head in heads.values() for projector in head["cls"].values()):
        return ladder(blocks)
    device = blocks[0].cls.device.type
    inputs = [blocks[number] for number in ladder.blocks]
    if torch.is_autocast_enabled(device):
        dtype = torch.get_autocast_dtype(device)
        inputs = [Tokens(tokens.cls.to(dtype), tokens.patches.to(dtype)) for tokens in inputs]
    sums = _each_sum_of_mlps if device == "cpu" else sums_of_mlps
    cls = sums([list(head["cls"].values()) for head in heads.values()], [x.cls[:, None] for x in inputs])
    patches = sums([list(head["patch"].values()) for head in heads.values()], [x.patches for x in inputs])
    return {
        name: Tokens(of_cls[:, 0], of_patches)
        for name, of_cls, of_patches in zip(heads, cls, patches, strict=True)
    }


def _each_sum_of_mlps(
    mlps: Sequence[Sequence[Mlp]], inputs: Sequence[Float[Tensor, "B N D"]]
) -> list[Float[Tensor, "B N E"]]:
    """`sums_of_mlps`, one teacher after the other."""
    return [_SumOfMlps.apply(len(inputs), *inputs, *parameters_of(of_teacher)) for of_teacher in mlps]


class _SumOfMlps(torch.autograd.Function):
    """(L, L inputs, weight and bias of both layers of L MLPs) -> the sum of the MLPs' outputs.

    On a processor, where the host may ask which images have a gradient.
    """

    @staticmethod
    def forward(ctx: Any, num_blocks: int, *tensors: Tensor) -> Float[Tensor, "B N E"]:
        inputs, parameters = tensors[:num_blocks], tensors[num_blocks:]
        device, dtype = inputs[0].device.type, inputs[0].dtype
        rounded = [parameter.to(dtype) for parameter in parameters]
        before = []
        with torch.autocast(device, enabled=False):
            output = torch.stack([bias.float() for bias in parameters[3::4]]).sum(0).to(dtype)
            for number, x in enumerate(inputs):
                first, first_bias, second, _ = rounded[4 * number : 4 * number + 4]
                before.append(F.linear(x.flatten(0, 1), first, first_bias))
                output = torch.addmm(output, F.gelu(before[-1]), second.T)
        ctx.save_for_backward(*inputs, *before, *rounded[0::4], *rounded[2::4])
        ctx.parameter_type = parameters[0].dtype
        ctx.set_materialize_grads(False)
        return output.unflatten(0, inputs[0].shape[:2])

    @staticmethod
    def backward(ctx: Any, *gradients: Float[Tensor, "B N E"] | None) -> tuple[Tensor | None, ...]:  # pyright: ignore[reportIncompatibleMethodOverride]
        num_blocks = len(ctx.saved_tensors) // 4
        inputs, before, firsts, seconds = (
            ctx.saved_tensors[part * num_blocks : (part + 1) * num_blocks] for part in range(4)
        )
        (gradient,) = gradients
        if gradient is None:  # this token type has no loss
            return (None,) * (1 + 5 * num_blocks)
        images, num_tokens = gradient.shape[:2]
        kept = _kept(gradient)
        of_output = _rows(gradient.to(inputs[0].dtype), kept)
        of_inputs, of_parameters = [], []
        for x, z, first, second in zip(inputs, before, firsts, seconds, strict=True):
            z = _rows(z.unflatten(0, (images, num_tokens)), kept)
            of_z = torch.ops.aten.gelu_backward(of_output @ second, z)
            of_inputs.append(_among_all(of_z @ first, kept, x.shape))
            of_parameters += [of_z.T @ _rows(x, kept), of_z.sum(0), of_output.T @ F.gelu(z), None]
        of_bias = of_output.float().sum(0)  # one for all blocks
        return (
            None,
            *of_inputs,
            *((of_bias if part is None else part).to(ctx.parameter_type) for part in of_parameters),
        )


def _kept(gradient: Float[Tensor, "B N E"]) -> Int64[Tensor, " kept"] | None:
    """Images that have a gradient; None: take all."""
    some = gradient.flatten(1).any(1)
    return None if some.all() else some.nonzero()[:, 0]


def _rows(x: Float[Tensor, "B N C"], kept: Int64[Tensor, " kept"] | None) -> Float[Tensor, "M C"]:
    return (x if kept is None else x.index_select(0, kept)).flatten(0, 1)


def _among_all(
    rows: Float[Tensor, "M C"], kept: Int64[Tensor, " kept"] | None, shape: torch.Size
) -> Float[Tensor, "B N C"]:
    """`rows` of the kept images in their places, zeros elsewhere."""
    if kept is None:
        return rows.view(shape)
    return rows.new_zeros(shape).index_copy_(0, kept, rows.view(-1, *shape[1:]))
