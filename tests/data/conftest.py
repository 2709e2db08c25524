"""Small photographs, made up: smooth enough for JPEG, different for every number."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image


def picture(number: int, width: int = 40, height: int = 30) -> Image.Image:
    y, x = np.mgrid[:height, :width]
    waves = [np.sin(x / (3 + number % 5) + c) + np.cos(y / (4 + number % 3) - number + c) for c in range(3)]
    return Image.fromarray(np.uint8(np.stack(waves, axis=-1) * 60 + 127))


@pytest.fixture
def folder_of(tmp_path: Path) -> Callable[..., Path]:
    """Writes a folder with this many photographs of different sizes."""

    def write(num_images: int, name: str = "photos") -> Path:
        folder = tmp_path / name
        folder.mkdir()
        for i in range(num_images):
            picture(i, 30 + i % 7, 24 + i % 5).save(folder / f"{i:03d}.png")
        return folder

    return write
