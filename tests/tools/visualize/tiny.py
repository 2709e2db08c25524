"""Tiny encoders with random weights, and what they look at."""

from typing import Any

import numpy as np
import timm
import torch
from layouts import randomised
from PIL import Image

from unic.models.timm_encoder import TimmEncoder
from unic.tools.visualize.extract import EncoderMaps

CPU = torch.device("cpu")


def vit(**options: Any) -> Any:
    choices = {"embed_dim": 24, "depth": 2, "num_heads": 3, "num_classes": 0, "img_size": 32, "patch_size": 8}
    return randomised(timm.models.VisionTransformer(**{**choices, **options}))


def vit_encoder(name: str = "tiny", **options: Any) -> TimmEncoder:
    return TimmEncoder(vit(**options), name=name, image_size=32).eval()


def cnn_encoder(name: str = "small") -> TimmEncoder:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = timm.create_model("test_convnext", num_classes=0)
    return TimmEncoder(model.eval().requires_grad_(False), name=name, image_size=64).eval()


def picture(seed: int = 0, size: tuple[int, int] = (90, 70)) -> Image.Image:
    """Smooth blobs of colour: width, height."""
    small = np.random.default_rng(seed).integers(0, 256, (6, 6, 3), dtype=np.uint8)
    return Image.fromarray(small).resize(size, Image.Resampling.BICUBIC)


def seen(maps: torch.Tensor, name: str = "tiny", space: str | None = None) -> EncoderMaps:
    return EncoderMaps(name, space, 32, maps, "")


def random_maps(width: int, side: int = 6, seed: int = 0, images: int = 2) -> torch.Tensor:
    """Features whose directions differ in variance, so that components have an order."""
    generator = torch.Generator().manual_seed(seed)
    factors = (
        torch.randn(images, 5, side, side, generator=generator)
        * torch.tensor([5.0, 3.0, 2.0, 1.0, 0.5])[:, None, None]
    )
    mixing = torch.linalg.qr(torch.randn(width, width, generator=generator))[0][:, :5]
    return torch.einsum("ek,bkhw->behw", mixing, factors) + torch.randn(width, 1, 1, generator=generator)
