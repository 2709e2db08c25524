"""Which forms a training step is computed in: chosen once, before student and teachers are built."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any, Literal, TypeVar

import torch
from timm.models.eva import Eva
from timm.models.vision_transformer import VisionTransformer
from torch import nn

from unic.core.torch_compile import compile_module, compiled
from unic.kernels.frozen_weights import cast_weights, prepack_weights
from unic.kernels.gelu import replace_gelu
from unic.kernels.ladder_cpu import fast_ladder
from unic.kernels.patch_embed import replace_patch_embed
from unic.kernels.split_tokens import split_block_outputs
from unic.kernels.token_loss import fast_token_loss
from unic.method.losses import TokenLoss, token_loss
from unic.method.standardize import EXACT_STATISTICS, StatisticsKernels, standardize, token_moments
from unic.models.encoder import ImageEncoder, normalize
from unic.models.share_weights import share_weights
from unic.models.student import EXACT, StudentKernels
from unic.models.timm_encoder import TimmEncoder

E = TypeVar("E", bound=ImageEncoder)

# Tokens of this many features in all: what one layer hands to the next then stays in the caches of a processor.
_CACHED_FEATURES = 2_400_000


@dataclass(frozen=True)
class Kernels:
    """The functions that a step is made of. The defaults are the definitions; `choose_kernels` gives faster ones.

    frozen: from a teacher as it was loaded to the one that a run holds; the latter keeps its content_hash.
    images_at_once: how many images a micro-batch should have for this student's sake; None: as many as there are.
    compiles: whether the first step waits for torch's compiler.
    """

    student: StudentKernels = EXACT
    frozen: Callable[[ImageEncoder], ImageEncoder] = lambda encoder: encoder
    statistics: StatisticsKernels = EXACT_STATISTICS
    token_loss: TokenLoss = token_loss
    images_at_once: Callable[[ImageEncoder], int | None] = lambda encoder: None
    compiles: bool = False


def choose_kernels(
    kind: Literal["exact", "fast"], device: torch.device, autocast: torch.dtype | None
) -> Kernels:
    """The definitions, or what computes the same to rounding in less time on this type of device.

    autocast: the precision that the step will run in; None: that of the weights.
    """
    if kind == "exact":
        return Kernels()
    if device.type == "cpu":
        return Kernels(
            student=StudentKernels(encoder=with_plain_attention, project=fast_ladder),
            frozen=partial(_frozen_on_cpu, dtype=autocast),
            token_loss=fast_token_loss,
            images_at_once=images_in_cache,
        )
    return Kernels(
        student=StudentKernels(encoder=compile_encoder, read_blocks=split_block_outputs, project=fast_ladder),
        frozen=partial(compile_encoder, dtype=autocast),
        statistics=StatisticsKernels(compiled(standardize), compiled(token_moments)),
        token_loss=fast_token_loss,
        compiles=True,
    )


def with_plain_attention(encoder: TimmEncoder) -> TimmEncoder:
    """For processors; the parameters are shared."""
    network = share_weights(encoder.model)
    unfuse_attention(network)
    return encoder.replace(network=network)


def unfuse_attention(model: nn.Module) -> int:
    """Takes the plain form of every attention that has both; gives their number. The result is the same to rounding.

    On a processor two plain products and a softmax are faster for as many tokens as an image has than the fused kernel,
    which is made for long sequences (197 tokens in bf16: twice as fast).
    """
    layers: list[Any] = [module for module in model.modules() if getattr(module, "fused_attn", False)]
    for module in layers:
        module.fused_attn = False
    return len(layers)


def compile_encoder(encoder: E, dtype: torch.dtype | None = None) -> E:
    """An encoder whose blocks, and what comes before them, are compiled; the parameters are shared.

    dtype: of the weights of one that is frozen; None: as they are.
    """
    network = share_weights(encoder.model)
    if dtype is not None:
        cast_weights(network, dtype)
    compile_vits(network)
    return encoder.replace(
        network=network,
        normalize=compiled(normalize),
        content_hash=None if dtype is None else encoder.content_hash(),
    )


def compile_vits(network: nn.Module) -> int:
    """Compiles the blocks of ViTs, of which those that are alike are compiled once; gives their number.

    Patch embeddings become matmuls, and the exact GELU one that costs a single exponential.
    """
    num_blocks = 0
    for module in list(network.modules()):
        if isinstance(module, VisionTransformer | Eva):
            replace_patch_embed(module.patch_embed)
            replace_gelu(module.blocks)
            for block in module.blocks:
                compile_module(block)
            num_blocks += len(module.blocks)
    return num_blocks


def images_in_cache(encoder: ImageEncoder) -> int:
    """How many images' tokens stay in the caches of a processor from layer to layer."""
    rows, columns = encoder.grid
    return max(1, round(_CACHED_FEATURES / ((rows * columns + 1) * encoder.dim)))


def _frozen_on_cpu(encoder: E, dtype: torch.dtype | None) -> E:
    network = share_weights(encoder.model)
    if dtype is not None:
        cast_weights(network, dtype)
    prepack_weights(network)
    unfuse_attention(network)
    return encoder.replace(network=network, content_hash=None if dtype is None else encoder.content_hash())
