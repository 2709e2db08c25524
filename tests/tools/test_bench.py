"""`unic bench`: every figure there and finite, the step that is timed is the step of a run, nothing is downloaded."""

import json
import math
import os
import signal
import subprocess
from collections.abc import Iterator
from dataclasses import asdict, replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from unic import recipes
from unic.cli import main
from unic.core.errors import ConfigError
from unic.core.run_folder import RunDir
from unic.tools.bench.data_throughput import time_reading
from unic.tools.bench.machine import commit, matmul_flops
from unic.tools.bench.measure import measure
from unic.tools.bench.options import BenchOptions
from unic.tools.bench.random_teacher import PUBLISHED, RANDOM, load_or_randomize
from unic.tools.bench.subprocess_runner import SubprocessRunner
from unic.tools.bench.timed_step import PARTS, Timed, TimedStep, made_up_batches, shares_of_parts
from unic.tools.estimate import IMAGENET_1K, estimate
from unic.train.build_run import build_run
from unic.train.monitor.metric_sums import readable
from unic.train.recipe import Recipe
from unic.train.train_step import forward_backward, mean_gradients

CPU = torch.device("cpu")
TEACHERS = tuple(f"timm:{name}?pretrained=0&image_size=32" for name in ("vit_tiny_patch16_224", "test_vit"))


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("photos")
    rng = np.random.default_rng(0)
    for i in range(8):
        Image.fromarray(rng.integers(0, 256, (40, 36, 3), dtype=np.uint8)).save(folder / f"{i}.png")
    return folder


@pytest.fixture(scope="module")
def recipe() -> Recipe:
    """A ViT of width 32, from its dimensions; drop path and teacher dropping are on."""
    return replace(recipes.debug(), teachers=TEACHERS)


def in_this_process(recipe: Recipe, device: torch.device, threads: int) -> TimedStep:
    return TimedStep(recipe, device)


@pytest.fixture(scope="module")
def found(recipe: Recipe, photos: Path) -> dict[str, Any]:
    choices = BenchOptions(batch=4, steps=2, fp32=True, threads=1, data_root=(str(photos),))
    return measure(recipe, choices, device=CPU, start=in_this_process)


@pytest.fixture
def known_peak(monkeypatch: pytest.MonkeyPatch) -> None:
    """Saves a second where the peak does not matter."""
    monkeypatch.setattr("unic.tools.bench.measure.matmul_flops", lambda dtype, device: 1e11)


def leaves(value: Any, name: str = "") -> Iterator[tuple[str, Any]]:
    if isinstance(value, dict):
        for key, part in value.items():
            yield from leaves(part, f"{name}.{key}")
    else:
        yield name, value


def test_every_figure_is_there_and_finite(found: dict[str, Any]):
    assert json.loads(json.dumps(found, allow_nan=False)) == found
    numbers = {name: value for name, value in leaves(found) if isinstance(value, int | float)}
    assert all(math.isfinite(value) for value in numbers.values())
    empty = [name.rpartition(".")[2] for name, value in leaves(found) if value is None]
    assert set(empty) <= {"host_syncs", "commit", "accelerator"}
    assert set(found["settings"]) == {"exact fp32", "exact bf16", "fast bf16"}
    for row in found["settings"].values():
        assert set(row["seconds_by_part"]) == set(PARTS)
        assert all(seconds > 0 for seconds in row["seconds_by_part"].values())
        assert row["seconds_least"] <= row["seconds"] <= row["seconds_most"]
        assert row["images_per_second"] == pytest.approx(4 / row["seconds"])
        assert row["peak_memory_bytes"] > 50e6
    assert set(found["parity"]) == {"bf16", "fp32"} and found["ratio"] > 0
    assert found["whole_recipe"]["training_images"] == 8  # those of --data-root


def test_bytes_between_processes_are_those_of_the_vector_and_of_the_gradients(found, recipe: Recipe):
    widths = (192, 64)  # of the two teachers; each has 2 counts and 4 sums a feature
    sums = 2 + 3 * 2
    assert found["bytes_reduced"]["metrics_and_moments"] == 4 * (
        sums + sum(2 + 4 * width for width in widths)
    )
    assert found["bytes_reduced"]["gradients"] == estimate(recipe, None).memory.gradients


@pytest.mark.parametrize("kernels", ["exact", "fast"])
def test_the_step_that_is_timed_is_the_step_of_a_run(
    kernels: Any, recipe: Recipe, photos: Path, tmp_path: Path
):
    recipe = replace(
        recipe,
        data=replace(recipe.data, root=(str(photos),)),
        optim=replace(recipe.optim, batch_size=4),
        speed=replace(recipe.speed, kernels=kernels, micro_batch=2, workers=0),
    )
    timed = TimedStep(recipe, CPU).step()
    context, state = build_run(recipe, RunDir(tmp_path), CPU)
    batches = made_up_batches(recipe, 2)
    assert [len(batch.images) for batch in batches] == [2, 2]
    sums, _, _ = forward_backward(context, state, state.student, batches, torch.zeros(1))
    losses = [
        value for name, value in readable(sums, context.teacher_names).items() if name.startswith("loss/")
    ]
    assert timed.loss == pytest.approx(sum(losses) / len(losses), rel=1e-5)
    assert timed.gradient_norm == pytest.approx(mean_gradients(state, sums, None).item(), rel=1e-4)


def test_exact_and_fast_that_disagree_have_no_ratio(recipe: Recipe, photos: Path, known_peak: None, capsys):
    class Off(TimedStep):
        def step(self) -> Timed:
            timed = super().step()
            return replace(timed, loss=timed.loss * (1.02 if self.recipe.speed.kernels == "fast" else 1.0))

    choices = BenchOptions(batch=2, steps=1, threads=1, data_root=(str(photos),))
    found = measure(recipe, choices, device=CPU, start=lambda recipe, device, threads: Off(recipe, device))
    assert found["ratio"] is None
    assert found["parity"]["bf16"]["loss_difference"] == pytest.approx(0.02, rel=0.05)

    from rich.console import Console

    from unic.tools.bench.print_bench import print_measured

    print_measured({"recipe": "tiny", **found}, Console(width=200))
    said = capsys.readouterr().out
    assert "no ratio: exact and fast do not compute the same loss" in said
    assert "times as fast" not in said


@pytest.mark.parametrize(
    ("reference", "has"),
    [
        ("timm:test_efficientnet?image_size=64", RANDOM),
        ("timm:test_convnext?image_size=64", RANDOM),
        ("timm:vit_tiny_patch16_224?image_size=64", RANDOM),
        ("dino_vits16?image_size=64", RANDOM),
        ("efficientnet_lite0?image_size=64", PUBLISHED),
    ],
)
def test_a_teacher_without_weights_has_ordinary_features(
    reference: str, has: str, monkeypatch, tmp_path: Path
):
    monkeypatch.setenv("UNIC_WEIGHTS", str(tmp_path))
    monkeypatch.setenv("UNIC_MIRROR", "http://127.0.0.1:9")  # would refuse at once
    encoder, weights = load_or_randomize(reference)
    assert weights == has
    tokens = encoder(torch.randint(0, 256, (2, 3, 64, 64), dtype=torch.uint8))
    for part in (tokens.cls, tokens.patches):
        assert part.isfinite().all()
        assert 1e-6 < part.abs().mean() < 1e4
    assert not list(tmp_path.iterdir())


def test_code_that_would_be_downloaded_is_refused():
    with pytest.raises(ConfigError, match="unic bench downloads nothing"):
        load_or_randomize("hub:facebookresearch/dinov2:dinov2_vits14?trust=1")


def test_reading_is_timed_on_made_up_photographs_too(recipe: Recipe):
    reading = time_reading(recipe, (), batch=8, workers=0)
    assert reading.made_up and reading.num_images == 64
    assert 1 < reading.images_per_second < 1e6


def test_a_small_folder_does_not_stand_for_the_training_set(recipe: Recipe, photos: Path, known_peak: None):
    large = replace(recipe, optim=replace(recipe.optim, batch_size=16))
    choices = BenchOptions(batch=2, steps=1, threads=1, data_root=(str(photos),))
    found = measure(large, choices, device=CPU, start=in_this_process)
    assert found["whole_recipe"]["training_images"] == IMAGENET_1K


def test_products_reach_what_a_processor_can():
    assert 1e8 < matmul_flops(torch.float32, CPU) < 1e14


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--recipe", "unic_vitb61"], "did you mean"),
        (["--recipe", "nothing.json"], "no such file; wanted the name of a recipe, or a run's config.json"),
        (["--batch", "1"], "--batch must be at least 2 (a std needs two images), got 1"),
        (["--steps", "0"], "--steps and --threads must be at least 1, got 0 and None"),
        (["--threads", "0"], "--steps and --threads must be at least 1, got 5 and 0"),
        (["--image-size", "100"], "student.image_size 100"),
        (["--data-root", "nowhere"], "nowhere"),
        (["--out", "nowhere/x.json"], "nowhere: no such folder; make it, or give another --out"),
    ],
)
def test_a_mistake_is_explained(words: list[str], said: str, capsys):
    try:
        code = main(["bench", "--recipe", "debug", "--device", "cpu", *words])
    except SystemExit as exit_:  # the reader of options frames what it finds by itself
        code = exit_.code
    message = " ".join(capsys.readouterr().err.replace("\u2502", "").split())
    assert code == 2 and said in message and "Traceback" not in message


def test_the_command_fails_where_exact_and_fast_disagree(found, tmp_path, monkeypatch, capsys):
    out = tmp_path / "bench.json"
    for ratio, code in ((None, 1), (1.5, 0)):
        monkeypatch.setattr("unic.tools.bench.measure.measure", lambda *_, **__: {**found, "ratio": ratio})  # noqa: B023
        assert main(["bench", "--recipe", "debug", "--device", "cpu", "--out", str(out)]) == code
        assert json.loads(out.read_text())["ratio"] == ratio
    capsys.readouterr()


@pytest.mark.slow
def test_the_command_measures_in_processes_of_their_own(photos: Path, tmp_path: Path, capsys):
    out = tmp_path / "bench.json"
    words = ["--batch", "8", "--steps", "2", "--threads", "1", "--data-root", str(photos), "--out", str(out)]
    assert main(["bench", "--recipe", "debug", "--device", "cpu", *words]) == 0
    found = json.loads(out.read_text())
    assert found["recipe"] == "debug" and found["ratio"] > 0
    assert found["teachers"] == dict.fromkeys(recipes.debug().teachers, RANDOM)
    assert "fast bf16" in capsys.readouterr().out


@pytest.mark.slow
def test_a_mistake_and_a_death_elsewhere_are_sentences_here(recipe: Recipe):
    wrong = SubprocessRunner(replace(recipe, teachers=("hub:owner/name:entry?trust=1",)), CPU, 1)
    with pytest.raises(ConfigError, match="unic bench downloads nothing"):
        wrong.step()
    wrong.close()
    killed = SubprocessRunner(recipe, CPU, 1)
    assert asdict(killed.step())["loss"] > 0
    os.kill(killed._process.pid, signal.SIGKILL)
    with pytest.raises(ConfigError, match=r"died \(exit code -9\); is memory full\? use a smaller --batch"):
        killed.step()
    killed.close()


def test_on_an_accelerator_kernels_count_for_the_part_in_which_they_were_launched():
    """Whichever thread launched them; two parts of one name add up."""

    def event(
        name: str, start: float, end: float, kernels: tuple[float, ...] = (), device: str = "CPU"
    ) -> Any:
        return SimpleNamespace(
            name=name,
            device_type=SimpleNamespace(name=device),
            time_range=SimpleNamespace(start=start, end=end, elapsed_us=lambda: end - start),
            kernels=[SimpleNamespace(duration=duration) for duration in kernels],
        )

    events = [
        event("teachers", 0, 10),
        event("aten::mm", 1, 2, (30.0, 10.0)),
        event("backward", 10, 20),
        event("autograd::engine", 12, 13, (50.0,)),
        event("teachers", 30, 40),
        event("aten::mm", 31, 32, (10.0,)),
        event("aten::mm", 50, 51, (70.0,)),  # after the step
        event("teachers", 0, 90, device="CUDA"),  # the profiler's own note on the device's line
    ]
    shares = shares_of_parts(events, on_cpu=False)
    assert shares == {**dict.fromkeys(PARTS, 0.0), "teachers": 0.5, "backward": 0.5}
    assert shares_of_parts(events, on_cpu=True)["teachers"] == pytest.approx(2 / 3)


def test_the_parts_of_a_step_are_named_where_it_is_computed(recipe: Recipe):
    shares = TimedStep(recipe, CPU).shares()
    assert set(shares) == set(PARTS) and sum(shares.values()) == pytest.approx(1)
    assert all(share > 0 for share in shares.values())


def test_the_commit_is_that_of_the_checkout():
    git = subprocess.run(
        ["git", "rev-parse", "--short", "HEAD"], cwd=Path(__file__).parent, capture_output=True, text=True
    )
    assert (commit() or "").removesuffix("+") == git.stdout.strip()
