from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from small_runs import changed, small_recipe, write_photos

from unic.core.run_folder import RunDir
from unic.train.loop import train


@pytest.fixture
def losses_of_twenty_steps(tmp_path: Path) -> Callable[[str, str, str], torch.Tensor]:
    """Of a run with these kernels, in this precision, on this type of device. Drop path, teacher dropping, two unlike
    teachers, validation and fidelity included.
    """
    photos = write_photos(tmp_path / "photos")

    def run(kernels: Any, precision: Any, device: str) -> torch.Tensor:
        changes = {
            "data": {"val_root": (str(photos / "train"),)},
            "optim": {"batch_size": 6, "epochs": 5.0},
            "log": {"checkpoint_steps": None},
            "speed": {"precision": precision, "kernels": kernels},
        }
        folder = tmp_path / kernels
        index = None if device == "cpu" else 0
        assert train(changed(small_recipe(photos), changes), folder, torch.device(device, index))
        lines = RunDir(folder).read("metrics.jsonl")
        return torch.tensor([line["loss"] for line in lines if "loss" in line])

    return run
