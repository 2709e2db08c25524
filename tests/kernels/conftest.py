from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from unic.core.run_folder import RunDir
from unic.recipes import debug
from unic.train.loop import train


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    """24 made-up images."""
    rng = np.random.default_rng(0)
    folder = tmp_path / "photos"
    folder.mkdir()
    for i in range(24):
        coarse = rng.integers(0, 256, (6, 5, 3), dtype=np.uint8)
        Image.fromarray(coarse).resize((36, 40), Image.Resampling.BICUBIC).save(folder / f"{i}.png")
    return folder


@pytest.fixture
def losses_of_twenty_steps(photos: Path, tmp_path: Path) -> Callable[[str, str, str], torch.Tensor]:
    """Of a run with these kernels, in this precision, on this type of device. Drop path, teacher dropping, two unlike
    teachers, validation and fidelity included.
    """

    def run(kernels: Any, precision: Any, device: str) -> torch.Tensor:
        base = debug()
        recipe = replace(
            base,
            teachers=tuple(f"timm:{n}?pretrained=0&image_size=32" for n in ("test_convnext", "test_vit")),
            data=replace(base.data, root=(str(photos),), val_root=(str(photos),)),
            optim=replace(base.optim, batch_size=6, epochs=5.0, warmup_epochs=1.0, lr=3e-3),
            log=replace(base.log, every=1),
            speed=replace(base.speed, workers=0, precision=precision, kernels=kernels),
        )
        folder = tmp_path / kernels
        assert train(recipe, folder, torch.device(device) if device == "cpu" else torch.device(device, 0))
        lines = RunDir(folder).read("metrics.jsonl")
        return torch.tensor([line["loss"] for line in lines if "loss" in line])

    return run
