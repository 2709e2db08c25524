"""The one place where fast forms take the place of the plain ones."""

from collections.abc import Iterable
from functools import partial

import torch
from timm.models.eva import Eva
from timm.models.vision_transformer import VisionTransformer
from torch import nn

from unic.core.compile_cache import compile_method, compile_module
from unic.kernels.attention import unfuse_attention
from unic.kernels.frozen_weights import cast_weights, prepack_weights
from unic.kernels.gelu import replace_gelu
from unic.kernels.ladder_cpu import fast_ladder
from unic.kernels.patch_embed import embed_by_product
from unic.kernels.split_tokens import whole_blocks
from unic.method.standardize import Standardizer
from unic.models.encoder import ImageEncoder
from unic.models.student import Student

# Tokens of this many features in all: what one layer hands to the next then stays in the caches of a processor.
_CACHED_FEATURES = 2_400_000


def apply_fast_kernels(
    student: Student,
    teachers: nn.Module,
    standardizers: Iterable[Standardizer],
    device: torch.device,
    autocast: torch.dtype | None,
) -> None:
    """Makes a training step faster and leaves what it computes, but for rounding.

    autocast: the precision that the step will run in; None: that of the weights.
    """
    student.project = partial(fast_ladder, student.ladder)
    if autocast is not None:
        cast_weights(teachers, autocast)
    if device.type == "cpu":
        prepack_weights(teachers)
        unfuse_attention(student.encoder)
        unfuse_attention(teachers)
        return
    for network in (student, teachers):
        compile_encoders(network)
    student.read_blocks = partial(whole_blocks, student.encoder)
    for standardizer in standardizers:
        compile_method(standardizer, "forward")
        compile_method(standardizer, "moments")


def compile_encoders(network: nn.Module) -> int:
    """Compiles the blocks of ViTs, of which those that are alike are compiled once, and what comes before them; gives
    their number.
    """
    num_blocks = 0
    for module in list(network.modules()):
        if isinstance(module, ImageEncoder):
            compile_method(module, "normalize")
        if isinstance(module, VisionTransformer | Eva):
            embed_by_product(module.patch_embed)
            replace_gelu(module.blocks)
            for block in module.blocks:
                compile_module(block)
            num_blocks += len(module.blocks)
    return num_blocks


def images_at_once(student: Student, device: torch.device) -> int | None:
    """How many images a micro-batch should have for the student's sake; None: as many as there are."""
    if device.type != "cpu":
        return None
    rows, columns = student.encoder.grid
    return max(1, round(_CACHED_FEATURES / ((rows * columns + 1) * student.encoder.dim)))
