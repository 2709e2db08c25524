"""Inputs of encoders, and what is done to them first: written out, because it is part of what tests check."""

from collections.abc import Sequence

import torch
from torch import Tensor

from unic.method.types import TokenMaps, Tokens

IMAGENET_MEAN, IMAGENET_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
CLIP_MEAN, CLIP_STD = (0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711)


def random_images(height: int, width: int | None = None, *, num: int = 2) -> Tensor:
    """(num, 3, height, width) bytes; square without a width."""
    generator = torch.Generator().manual_seed(0)
    return torch.randint(0, 256, (num, 3, height, width or height), dtype=torch.uint8, generator=generator)


def normalised(
    images: Tensor, mean: Sequence[float] = IMAGENET_MEAN, std: Sequence[float] = IMAGENET_STD
) -> Tensor:
    """Bytes as floats with this mean and std."""
    return (images / 255 - torch.tensor(mean).view(3, 1, 1)) / torch.tensor(std).view(3, 1, 1)


def assert_tokens(found: Tokens | TokenMaps, cls: Tensor, patches: Tensor, **tolerance: float) -> None:
    """tolerance: rtol and atol of torch.testing.assert_close; its own where they are left out."""
    torch.testing.assert_close(found.cls, cls, **tolerance)
    torch.testing.assert_close(found.patches, patches, **tolerance)
