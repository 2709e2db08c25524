"""Files in the layouts that others publish, with random weights and few of them.

The encoders come from timm, which is the oracle of the tests: what it computes is what our reader has to compute.
"""

import argparse
import collections
from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from timm.layers.mlp import GluMlp, SwiGLUPacked
from timm.models.vision_transformer import VisionTransformer
from torch import Tensor, nn

from unic.method.types import Tokens

# By the names of the published files, sorted as they are there; widths as small as they are uneven.
TEACHERS = {"dino2_vitgiant_14": 24, "ibot_vitbase_16": 7, "metaclip_vithuge_14": 20}
OURS = {
    "dino2_vitgiant_14": "dinov2_vitg14_reg",
    "ibot_vitbase_16": "ibot_vitb16",
    "metaclip_vithuge_14": "metaclip_vith14",
}


def vit(
    width: int = 64,
    depth: int = 2,
    *,
    heads: int | None = None,
    patch_size: int = 16,
    image_size: int | None = None,
    gated: bool = False,
    **options: Any,
) -> VisionTransformer:
    """timm's ViT with weights of which none is 0 or 1; its image is 2 x 2 patches unless said otherwise.

    gated: a SwiGLU for the MLP.
    """
    gate = {"mlp_layer": SwiGLUPacked, "act_layer": nn.SiLU, "mlp_ratio": 4.0} if gated else {}
    model = VisionTransformer(
        img_size=image_size or 2 * patch_size,
        patch_size=patch_size,
        embed_dim=width,
        depth=depth,
        num_heads=heads or width // 64,
        num_classes=0,
        **gate,
        **options,
    )
    return randomised(model)


def randomised(model: Any, seed: int = 0) -> Any:
    generator = torch.Generator().manual_seed(seed)
    for parameter in model.parameters():
        scale = 0.5 if parameter.ndim == 1 else 0.1
        parameter.data.normal_(std=scale, generator=generator)
    return model.eval().requires_grad_(False)


def normalised(images: Tensor) -> Tensor:
    """ImageNet's mean and std, from the literature; images in [0, 1]."""
    mean, std = torch.tensor([0.485, 0.456, 0.406]), torch.tensor([0.229, 0.224, 0.225])
    return (images - mean.view(3, 1, 1)) / std.view(3, 1, 1)


def timm_tokens(model: Any, images: Tensor) -> Tokens:
    """What a ViT of timm computes of images in [0, 1]."""
    features = model.forward_features(normalised(images))
    return Tokens(features[:, 0], features[:, model.num_prefix_tokens :])


def dinov2_names(model: VisionTransformer, *, chunks: int = 0) -> dict[str, Tensor]:
    """The weights under DINOv2's names, with a mask_token. chunks: into how many the blocks are packed; 0: none."""
    state: dict[str, Tensor] = {"mask_token": torch.full((1, model.embed_dim), 0.5)}
    gated = isinstance(model.blocks[0].mlp, GluMlp)
    for key, tensor in model.state_dict().items():
        if key.startswith("blocks.") and chunks:
            _, number, rest = key.split(".", 2)
            key = f"blocks.{int(number) * chunks // len(model.blocks)}.{number}.{rest}"
        if gated:
            key = key.replace("mlp.fc1", "mlp.w12").replace("mlp.fc2", "mlp.w3")
        state[key] = tensor.clone()
    if "reg_token" in state:
        # Their CLS has a position of its own, which timm's pos_embed has no room for.
        position = torch.full((1, 1, model.embed_dim), 0.25)
        state["register_tokens"] = state.pop("reg_token")
        state["cls_token"] = state["cls_token"] - position
        state["pos_embed"] = torch.cat([position, state["pos_embed"]], dim=1)
    return state


def ladder(
    teachers: Mapping[str, int], *, dim: int, depth: int, hidden: int = 6, last_hidden: int = 10
) -> dict[str, Tensor]:
    """Projectors under the published names: a matrix, GELU, and a matrix on every block."""
    generator = torch.Generator().manual_seed(1)
    state = {}
    for teacher, width in teachers.items():
        for kind in ("cls", "patch"):
            for block in range(depth):
                inner = last_hidden if block == depth - 1 else hidden
                for layer, (rows, columns) in {0: (inner, dim), 2: (width, inner)}.items():
                    key = f"heads.{teacher}.{kind}.{block}.layers.{layer}"
                    state[f"{key}.weight"] = 0.2 * torch.randn(rows, columns, generator=generator)
                    state[f"{key}.bias"] = torch.randn(rows, generator=generator)
    return state


def statistics(teachers: Mapping[str, int]) -> collections.OrderedDict[str, Any]:
    generator = torch.Generator().manual_seed(2)
    found: collections.OrderedDict[str, Any] = collections.OrderedDict()
    for teacher, width in teachers.items():
        shapes = {"cls": (1, width), "patch": (1, 1, width)}
        found[teacher] = {
            kind: {
                "mean": 3.0 * torch.randn(shape, generator=generator),
                "std": torch.rand(shape, generator=generator) + 1e-6,
            }
            for kind, shape in shapes.items()
        }
    return found


def options(**changes: Any) -> argparse.Namespace:
    """What the training was called with, and the schedules that its script hangs onto it."""
    values = {
        "drop_path_rate": 0.2,
        "lp_args": "{'std': 0.02}",
        "optim_args": "__import__('os').mkdir('/nowhere/canary')",
        "teachers": sorted(TEACHERS),
        "lr": np.float64(3e-4),
        "world_size": np.int64(4),
        "lr_schedule": np.linspace(0.0, 3e-4, 11),
        "tnorm_ema_schedule": np.linspace(1.0, 0.001, 11).astype(np.float32),
        "best": float("inf"),
        "seed": 22,
    }
    return argparse.Namespace(**{**values, **changes})


def published(
    model: VisionTransformer,
    teachers: Mapping[str, int] = TEACHERS,
    *,
    prefix: str = "module.",
    **changes: Any,
) -> dict[str, Any]:
    """A checkpoint as UNIC's training writes it. changes: of args."""
    encoder = {f"encoder.{key}": tensor for key, tensor in dinov2_names(model, chunks=1).items()}
    projectors = ladder(teachers, dim=model.embed_dim, depth=len(model.blocks))
    state = {**encoder, **{f"lp.{key}": tensor for key, tensor in projectors.items()}}
    return {
        "model": collections.OrderedDict((f"{prefix}{key}", tensor) for key, tensor in state.items()),
        "teacher_ft_stats": statistics(teachers),
        "optimizer": {
            "state": collections.defaultdict(collections.OrderedDict, {0: {"step": torch.tensor(3.0)}}),
            "param_groups": [{"lr": np.float64(1e-4), "betas": (0.9, 0.99), "params": [0]}],
        },
        "epoch": 199,
        "args": options(**changes),
        "fp16_scaler": {"scale": 65536.0, "_growth_tracker": 7},
    }
