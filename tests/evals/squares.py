"""Images of one noisy colour each."""

from pathlib import Path

import numpy as np
from PIL import Image


def write_squares(folder: Path, colour: tuple[int, int, int], count: int) -> None:
    folder.mkdir(parents=True)
    rng = np.random.default_rng(sum(colour))
    for i in range(count):
        pixels = np.array(colour) + rng.integers(-15, 15, (8, 8, 3))
        Image.fromarray(pixels.clip(0, 255).astype(np.uint8)).save(folder / f"{i}.png")
