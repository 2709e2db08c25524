"""A tiny encoder and a tiny data set of coloured squares."""

import hashlib
from pathlib import Path
from typing import ClassVar

import pytest
import torch
from squares import write_squares
from torch import Tensor, nn

from unic.data.folders import read_image_folder
from unic.data.labeled_images import ImageList
from unic.method.types import Tokens

COLOURS = {"blue": (20, 40, 220), "green": (30, 200, 60), "red": (220, 30, 20)}


class MeanColour(nn.Module):
    """Mean colour as CLS, colours of the quarters as patches; counts its calls and remembers its mode."""

    name = "mean-colour"
    spaces: ClassVar = {}
    dim = 3
    patch_dim = 3
    patch_size = 4
    image_size = 8

    def __init__(self, scale: float = 1.0):
        super().__init__()
        self.scale = scale
        self.frozen = nn.Dropout(0.5)
        self.calls = 0
        self.modes: list[bool] = []

    def forward(self, images: Tensor) -> Tokens:
        self.calls += 1
        self.modes.append(self.training)
        patches = nn.functional.avg_pool2d(images.float() / 255, 4).flatten(2).transpose(1, 2)
        patches = self.frozen(patches) * self.scale
        return Tokens(patches.mean(1), patches)

    def content_hash(self) -> str:
        return hashlib.sha256(f"{self.name} {self.scale}".encode()).hexdigest()


@pytest.fixture
def encoder() -> MeanColour:
    """In training mode, with one part that is not."""
    model = MeanColour().train()
    model.frozen.eval()
    return model


@pytest.fixture
def root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """train/ with 6 squares of each colour, test/ with 3 of blue and red: green has no test image."""
    monkeypatch.setenv("UNIC_CACHE", str(tmp_path / "unic-cache"))
    folder = tmp_path / "squares"
    for split, count, colours in (("train", 6, COLOURS), ("test", 3, ("blue", "red"))):
        for colour in colours:
            write_squares(folder / split / colour, COLOURS[colour], count)
    return folder


@pytest.fixture
def images(root: Path) -> ImageList:
    return read_image_folder(root, "train")


@pytest.fixture
def cpu() -> torch.device:
    return torch.device("cpu")
