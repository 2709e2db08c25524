"""ViTs under the names of DINOv2, which UNIC publishes too: which architecture it is, and what timm calls its parts.

Letters: D width, N patches, R registers, p patch size.
"""

import logging
import math
import re
from collections.abc import Mapping
from typing import Any

from torch import Tensor

from unic.core.errors import ConfigError, WeightsError
from unic.models.config import Resampling, StudentConfig
from unic.models.state_keys import renamed

log = logging.getLogger(__name__)

# DINOv2's models by width and depth. They come with 0 or 4 registers, all with layer-scale and patches of 14 pixels.
_DINOV2 = {(384, 12): "small", (768, 12): "base", (1024, 24): "large", (1536, 40): "giant"}

# Attention heads are the one dimension that no tensor shows.
_HEADS = {"vit_tiny": 3, "vit_small": 6, "vit_base": 12, "vit_large": 16, "vit_giant2": 24}
_HEAD_WIDTH = 64

_BLOCK = re.compile(r"blocks\.(?:[0-9]+\.)?([0-9]+)\.")


def student_config(state: Mapping[str, Tensor], options: Mapping[str, Any], origin: str) -> StudentConfig:
    """The architecture of a ViT under DINOv2's names, from its shapes.

    options: those the file's training was given, where known: arch for the number of heads, drop_path_rate.
    Raises WeightsError naming `origin` for what is no ViT, or none that unic can build.
    """
    width, patch_size, side = _grid(state, origin)
    depth = len({found[1] for key in state if (found := _BLOCK.match(key))})
    rate = options.get("drop_path_rate")
    drop_path = float(rate) if isinstance(rate, int | float) else StudentConfig.drop_path
    registers = state["register_tokens"].shape[1] if "register_tokens" in state else 0
    scaled = any(".ls1." in key for key in state)
    gated = any(".mlp.w12." in key for key in state)
    hidden = state["blocks.0.mlp.fc1.weight"].shape[0] if "blocks.0.mlp.fc1.weight" in state else 4 * width
    if hidden != 4 * width and not gated:
        raise WeightsError(f"{origin}: its MLPs are {hidden} wide; unic builds ViTs with MLPs of 4 x {width}")
    if not (registers or scaled or gated):
        return StudentConfig(
            model=None,
            image_size=side * patch_size,
            width=width,
            depth=depth,
            heads=_heads(width, options, origin),
            patch_size=patch_size,
            drop_path=drop_path,
        )
    size = _DINOV2.get((width, depth))
    if size is None or patch_size != 14 or registers not in (0, 4) or not scaled:
        raise WeightsError(
            f"{origin} holds a ViT of width {width}, depth {depth} and patch size {patch_size} with {registers} "
            f"registers, {'' if scaled else 'no '}layer-scale and {'a SwiGLU' if gated else 'an MLP'}; with these "
            f"unic knows DINOv2's own models only (widths and depths {', '.join(map(str, _DINOV2))}, patch size 14)"
        )
    name = f"vit_{size}_patch14{'_reg4' if registers else ''}_dinov2"
    return StudentConfig(model=name, image_size=side * patch_size, drop_path=drop_path)


def dinov2_to_timm(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The same ViT under timm's names: without mask_token, blocks out of their chunks.

    Registers have no position, and timm gives none to CLS either then: its position is added to the token itself.
    """
    names = {
        r"^blocks\.[0-9]+\.([0-9]+)\.": r"blocks.\1.",
        r"\.mlp\.w12\.": ".mlp.fc1.",
        r"\.mlp\.w3\.": ".mlp.fc2.",
    }
    found = renamed(state, names)
    if len(found) < len(state):
        raise ConfigError("a block is there twice, in two chunks")
    found.pop("mask_token", None)
    if {"register_tokens", "pos_embed", "cls_token"} <= found.keys():
        positions = found["pos_embed"]
        found["reg_token"] = found.pop("register_tokens")
        found["cls_token"] = found["cls_token"] + positions[:, :1]
        found["pos_embed"] = positions[:, 1:]
    return found


def resampling(form: str | None, *, registers: bool) -> Resampling:
    """How the ViT of a file is brought to another image size; form: what `read_published` calls the file's format.

    Sources: the defaults of DINOv2's ViT, which UNIC's is; its hub/backbones.py for models with registers.
    """
    if form == "published UNIC" or (form == "DINOv2" and not registers):
        return Resampling(antialias=False, offset=0.1)
    return Resampling()


def _grid(state: Mapping[str, Tensor], origin: str) -> tuple[int, int, int]:
    """Width, patch size, and patches a side."""
    wanted = ("patch_embed.proj.weight", "pos_embed", "cls_token")
    missing = [key for key in wanted if key not in state]
    if missing:
        raise WeightsError(
            f"{origin} is no ViT that unic can build, or not whole: it has no {', '.join(missing)}"
        )
    projection, positions, token = (state[key].shape for key in wanted)
    width = projection[0] if len(projection) == 4 else 0
    shapes_agree = len(projection) == 4 and projection[2] == projection[3] and tuple(token) == (1, 1, width)
    if not shapes_agree or len(positions) != 3 or (positions[0], positions[2]) != (1, width):
        raise WeightsError(
            f"{origin} is no ViT that unic can build: patch_embed.proj.weight is {tuple(projection)}, pos_embed "
            f"{tuple(positions)}, cls_token {tuple(token)}; expected (D, 3, p, p), (1, 1 + N, D), (1, 1, D)"
        )
    side = math.isqrt(max(positions[1] - 1, 0))
    if side < 1 or side**2 != positions[1] - 1:
        raise WeightsError(
            f"{origin}: pos_embed has {positions[1]} positions; expected one for CLS and those of a square grid"
        )
    if "register_tokens" in state and tuple(state["register_tokens"].shape[::2]) != (1, width):
        raise WeightsError(
            f"{origin}: register_tokens is {tuple(state['register_tokens'].shape)}; expected (1, R, {width})"
        )
    return width, projection[2], side


def _heads(width: int, options: Mapping[str, Any], origin: str) -> int:
    if isinstance(options.get("num_heads"), int):
        return options["num_heads"]
    arch = options.get("arch")
    if arch is None and width % _HEAD_WIDTH == 0:
        log.info(
            "%s does not say how many attention heads it has: %d assumed, of the usual width %d",
            origin,
            width // _HEAD_WIDTH,
            _HEAD_WIDTH,
        )
        return width // _HEAD_WIDTH
    if arch is None:
        raise WeightsError(
            f"{origin} does not say how many attention heads it has: its args name no arch, and its width {width} "
            f"is no multiple of the usual {_HEAD_WIDTH} a head"
        )
    if arch not in list(_HEADS):
        raise WeightsError(
            f"{origin} was trained with arch {arch!r}, whose number of attention heads unic does not know; "
            f"known: {', '.join(_HEADS)}"
        )
    return _HEADS[arch]
