import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from small_runs import changed, small_recipe, write_photos

from unic.core.dataclass_json import to_dict
from unic.train import loop
from unic.train.async_scalars import AsyncScalars
from unic.train.loop import train
from unic.train.recipe import Recipe


@pytest.fixture(scope="session")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_photos(tmp_path_factory.mktemp("photos"))


@pytest.fixture(scope="session")
def recipe(photos: Path) -> Recipe:
    return small_recipe(photos)


@pytest.fixture(scope="session")
def short(recipe: Recipe) -> Recipe:
    """The same with 6 steps, and every checkpoint kept."""
    return changed(
        recipe, {"optim": {"epochs": 1.0, "warmup_epochs": 0.5}, "log": {"checkpoint_steps": 1, "keep": 99}}
    )


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


class Late(AsyncScalars):
    """On a CPU, and yet one step behind, as on an accelerator."""

    def __init__(self, device: torch.device):
        super().__init__(device)
        self._lag = 1


@pytest.fixture
def late(monkeypatch: pytest.MonkeyPatch) -> type[AsyncScalars]:
    monkeypatch.setattr(loop, "AsyncScalars", Late)
    return Late


@pytest.fixture(params=["at once", "a step late"])
def when_known(request: pytest.FixtureRequest) -> None:
    """What a run learns of its steps, it learns at once or a step late."""
    if request.param == "a step late":
        request.getfixturevalue("late")


@pytest.fixture
def change() -> Callable[..., Recipe]:
    return changed


@pytest.fixture(scope="session")
def run() -> Callable[[Recipe, Path], bool]:
    """Trains with as many threads as the processes that tests start: sums over threads can differ in their last bit."""

    def in_one_thread(recipe: Recipe, folder: Path) -> bool:
        before = torch.get_num_threads()
        torch.set_num_threads(1)
        try:
            return train(recipe, folder, torch.device("cpu"))
        finally:
            torch.set_num_threads(before)

    return in_one_thread


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
