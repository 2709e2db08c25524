"""The smallest runs that touch every part: made-up photographs, two small random teachers, a ViT of two
blocks as student."""

import json
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file

from unic import recipes
from unic.core.config import to_dict
from unic.train import loop
from unic.train.loop import train
from unic.train.recipe import Recipe

# A convolutional network and a ViT, whose features are never constant over a batch: the std of such a feature is the
# root of a rounding error, and so differs between one process and two.
TEACHERS = tuple(f"timm:{name}?pretrained=0&image_size=32" for name in ("test_convnext", "test_vit"))


@pytest.fixture(scope="session")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """train/ with 24 images, val/ with 5."""
    root = tmp_path_factory.mktemp("photos")
    rng = np.random.default_rng(0)
    for folder, num_images in (("train", 24), ("val", 5)):
        (root / folder).mkdir()
        for i in range(num_images):
            coarse = rng.integers(0, 256, (6, 5, 3), dtype=np.uint8)
            Image.fromarray(coarse).resize((36, 40), Image.Resampling.BICUBIC).save(
                root / folder / f"{i}.png"
            )
    return root


@pytest.fixture(scope="session")
def recipe(photos: Path) -> Recipe:
    """48 steps of 4 images in 8 epochs; drop path and teacher dropping are on; a checkpoint every 3 steps."""
    base = recipes.debug()
    return replace(
        base,
        teachers=TEACHERS,
        data=replace(base.data, root=(str(photos / "train"),)),
        optim=replace(base.optim, batch_size=4, epochs=8.0, warmup_epochs=1.0, lr=3e-3),
        log=replace(base.log, every=1, checkpoint_steps=3),
        speed=replace(base.speed, workers=0),
    )


@pytest.fixture
def short(recipe: Recipe) -> Recipe:
    """The same with 6 steps, and every checkpoint kept."""
    return changed(
        recipe, {"optim": {"epochs": 1.0, "warmup_epochs": 0.5}, "log": {"checkpoint_steps": 1, "keep": 99}}
    )


@pytest.fixture
def one_thread():
    """As many threads as in the processes that tests start: sums over threads could differ in their last bit."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture
def bad_gradient(monkeypatch):
    """Lets one entry of one gradient be NaN at certain steps, whatever the loss."""

    def at(steps: tuple[int, ...]) -> None:
        def build_run(*arguments):
            context, state = real(*arguments)

            def spoil(gradient: torch.Tensor) -> torch.Tensor:
                return gradient * torch.nan if state.step in steps else gradient

            state.student.encoder.model.blocks[0].attn.qkv.bias.register_hook(spoil)
            return context, state

        real = loop.build_run
        monkeypatch.setattr(loop, "build_run", build_run)

    return at


@pytest.fixture
def change() -> Callable[..., Recipe]:
    return changed


@pytest.fixture
def run(one_thread: None) -> Callable[[Recipe, Path], bool]:
    return lambda recipe, folder: train(recipe, folder, torch.device("cpu"))


@pytest.fixture
def config(tmp_path: Path) -> Callable[[Recipe], str]:
    """Writes a recipe as a file for `unic distill`."""

    def write(recipe: Recipe) -> str:
        path = tmp_path / "config.json"
        path.write_text(json.dumps(to_dict(recipe)))
        return str(path)

    return write


@pytest.fixture
def metrics() -> Callable[[Path], list[dict[str, Any]]]:
    """The lines of a run's metrics, without what depends on the clock."""

    def read(folder: Path) -> list[dict[str, Any]]:
        records = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
        return [{name: value for name, value in r.items() if name != "images_per_second"} for r in records]

    return read


@pytest.fixture
def state_of() -> Callable[..., dict[str, torch.Tensor]]:
    """Every tensor of a run's newest checkpoint, or of that of a step."""

    def load(folder: Path, step: int | None = None) -> dict[str, torch.Tensor]:
        found = sorted((folder / "checkpoints").glob("step-" + "[0-9]" * 8))
        checkpoint = found[-1] if step is None else folder / "checkpoints" / f"step-{step:08d}"
        parts = {path.stem: load_file(path) for path in checkpoint.glob("*.safetensors")}
        return {
            f"{part}/{name}": tensor for part, tensors in parts.items() for name, tensor in tensors.items()
        }

    return load


def changed(recipe: Recipe, changes: Mapping[str, Any]) -> Recipe:
    """A recipe with other fields: {"optim": {"epochs": 1.0}, "seed": 3}."""
    values = {
        name: replace(getattr(recipe, name), **value) if isinstance(value, dict) else value
        for name, value in changes.items()
    }
    return replace(recipe, **values)
