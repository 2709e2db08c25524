"""What a student is, in the words of other libraries: timm's name and options, and a plain ViT's dimensions.

Letters: D width, R registers, S tokens with a position.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float
from timm.layers.mlp import Mlp
from timm.layers.patch_embed import PatchEmbed
from timm.models.vision_transformer import Attention, Block, VisionTransformer  # pyright: ignore[reportPrivateImportUsage]
from torch import Tensor, nn

from unic.core.errors import ConfigError
from unic.method.types import Tokens
from unic.models.timm_encoder import TimmEncoder
from unic.students.export.parity import Read
from unic.students.loaded_student import LoadedStudent

# Any of timm's plain ViTs does for a student that was built by its dimensions: all of them are overridden.
_PLAIN = "vit_tiny_patch16_224"


@dataclass(frozen=True, kw_only=True)
class PlainViT:
    """A ViT without anything special: attention with one biased matrix, GELU, LayerNorm."""

    width: int
    depth: int
    heads: int
    hidden: int
    """Width inside the MLPs."""
    patch_size: int
    image_size: int
    registers: int
    layer_scale: bool
    eps: float
    """Of every LayerNorm."""


def timm_form(student: LoadedStudent) -> tuple[str, dict[str, Any]]:
    """timm's name of the architecture, and the options of timm.create_model that differ from its defaults."""
    cfg, size = student.cfg, student.encoder.image_size
    if cfg.model is not None:
        return cfg.model.split(".")[0], {"num_classes": 0, "global_pool": "token", "img_size": size}
    options = {
        "num_classes": 0,
        "img_size": size,
        "patch_size": cfg.patch_size,
        "embed_dim": cfg.width,
        "depth": cfg.depth,
        "num_heads": cfg.heads,
    }
    return _PLAIN, options | ({"reg_tokens": cfg.registers} if cfg.registers else {})


def timm_reader(model: Any, mean: Sequence[float], std: Sequence[float]) -> Read:
    """A timm ViT's own forward, after its mean and std."""
    model.eval()
    shift, scale = (torch.tensor(values).view(3, 1, 1) for values in (mean, std))

    def read(images: Float[Tensor, "B 3 H W"]) -> Tokens:
        features = model.forward_features((images - shift) / scale)
        return Tokens(features[:, 0], features[:, model.num_prefix_tokens :])

    return read


def mean_and_std(encoder: TimmEncoder) -> tuple[list[float], list[float]]:
    """Of the encoder's input, for each channel, as they are written in decimals."""
    mean, std = (
        [round(value, 7) for value in stat.flatten().tolist()] for stat in (encoder.mean, encoder.std)
    )
    return mean, std


def standard_tokens(student: LoadedStudent, to: str) -> VisionTransformer:
    """The student's model, where its tokens are patches plus positions behind a class token and registers.

    Raises ConfigError for any other architecture.
    """
    model = student.encoder.model
    problems = {
        "its class is not timm's VisionTransformer": type(model) is not VisionTransformer,
        "its patches are not one convolution": type(model.patch_embed) is not PatchEmbed
        or not isinstance(model.patch_embed.norm, nn.Identity),
        "it has no position embedding": model.pos_embed is None,
    }
    _refuse(student, to, problems)
    return model


def plain_vit(student: LoadedStudent, to: str) -> PlainViT:
    """Dimensions of the student. Raises ConfigError for an architecture that is not plain."""
    model: Any = standard_tokens(student, to)
    blocks = list(model.blocks)
    norms = [m for m in model.modules() if isinstance(m, nn.LayerNorm)]
    scales = {isinstance(block.ls1, nn.Identity) for block in blocks if isinstance(block, Block)}
    problems = {
        "its blocks are not plain": any(
            type(b) is not Block or type(b.attn) is not Attention or type(b.mlp) is not Mlp for b in blocks
        )
        or len(scales) != 1,
        "it normalises queries and keys": any(
            "q_norm" in key or "attn.norm" in key for key in model.state_dict()
        ),
        "its attention has no bias": any(
            key.endswith((".qkv.weight", ".attn.proj.weight"))
            and key.replace("weight", "bias") not in model.state_dict()
            for key in model.state_dict()
        ),
        "its MLPs are not two layers with GELU": any(
            type(getattr(b.mlp, "act", None)) is not nn.GELU
            or b.mlp.act.approximate != "none"
            or not isinstance(b.mlp.norm, nn.Identity)
            for b in blocks
            if type(getattr(b, "mlp", None)) is Mlp
        ),
        "it normalises before the blocks": not isinstance(model.norm_pre, nn.Identity)
        or model.patch_embed.proj.bias is None,
        "it has no final norm": not isinstance(model.norm, nn.LayerNorm),
        "its norms differ": len({norm.eps for norm in norms}) != 1,
    }
    _refuse(student, to, problems)
    return PlainViT(
        width=model.embed_dim,
        depth=len(blocks),
        heads=blocks[0].attn.num_heads,
        hidden=blocks[0].mlp.fc1.out_features,
        patch_size=model.patch_embed.patch_size[0],
        image_size=student.encoder.image_size,
        registers=model.num_reg_tokens,
        layer_scale=not scales.pop(),
        eps=norms[0].eps,
    )


def dinov2_tokens(model: Any) -> dict[str, Tensor]:
    """cls_token, pos_embed with one position for CLS, and register_tokens where there are any.

    timm can give registers positions of their own, or the class token none; DINOv2 has one for CLS and none for
    registers, so those are added to the registers.
    """
    positions: Float[Tensor, "1 S D"] = model.pos_embed.detach()
    cls, registers = model.cls_token.detach(), model.num_reg_tokens
    if model.no_embed_class:
        prefix, grid = positions.new_zeros(1, 1 + registers, positions.shape[2]), positions
    else:
        prefix, grid = positions[:, : 1 + registers], positions[:, 1 + registers :]
    tokens = {"cls_token": cls, "pos_embed": torch.cat([prefix[:, :1], grid], dim=1)}
    if registers:
        tokens["register_tokens"] = model.reg_token.detach() + prefix[:, 1:]
    return tokens


def _refuse(student: LoadedStudent, to: str, problems: dict[str, bool]) -> None:
    found = [what for what, holds in problems.items() if holds]
    if found:
        raise ConfigError(
            f"--to {to} does not fit {student.name} ({student.cfg.model}): {'; '.join(found)}; use --to timm"
        )
