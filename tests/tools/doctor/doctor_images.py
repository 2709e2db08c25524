"""Photographs in a folder, and small encoders whose features are known."""

from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor, nn

from unic.data.decode import sample_photographs
from unic.method.types import Tokens
from unic.models.encoder import ImageEncoder


def photographs(folder: Path, count: int, side: int = 32) -> Path:
    """Crops of scikit-learn's two photographs, of many sizes, brought to one."""
    folder.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(0)
    sources = sample_photographs()
    for number in range(count):
        image = sources[number % 2]
        size = int(rng.integers(100, 400))
        left, top = int(rng.integers(0, image.width - size)), int(rng.integers(0, image.height - size))
        crop = image.crop((left, top, left + size, top + size)).resize((side, side))
        crop.save(folder / f"{number:04d}.png")
    return folder


class Colours(ImageEncoder):
    """Patches are the mean colour of their cell; CLS is their mean. `spoil` may change what comes out."""

    def __init__(self, *, name: str, grid: int, image_size: int = 32, spoil=lambda tokens, pixels: tokens):
        super().__init__(nn.Identity(), name=name, image_size=image_size, mean=(0.0,) * 3, std=(1.0,) * 3)
        self.cells, self.spoil = grid, spoil
        self.measure()

    def tokens(self, pixels: Float[Tensor, "B 3 H W"]) -> Tokens:
        patches = nn.functional.adaptive_avg_pool2d(pixels, self.cells).flatten(2).transpose(1, 2)
        return self.spoil(Tokens(patches.mean(1), patches), pixels)


def same_vector(tokens: Tokens, pixels: Tensor) -> Tokens:
    return Tokens(torch.ones_like(tokens.cls), torch.ones_like(tokens.patches))
