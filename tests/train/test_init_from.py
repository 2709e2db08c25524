"""Runs that begin with the student of another one."""

import json
import logging
import re
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from timm.layers import resample_abs_pos_embed

from unic.core.errors import ConfigError, WeightsError
from unic.core.files import file_sha256, write_folder
from unic.core.run_folder import RunDir
from unic.kernels import choose
from unic.kernels.gelu import FastGelu
from unic.models.student import build_student
from unic.students.read_run import read_run
from unic.train.build_run import build_run
from unic.train.checkpoint import TrainState
from unic.train.loop import train
from unic.train.recipe import Recipe

CPU = torch.device("cpu")
CONVNEXT, VIT = "timm:test_convnext?pretrained=0&image_size=32", "timm:test_vit?pretrained=0&image_size=32"
OTHER = "timm:resnet10t?pretrained=0&image_size=32"


@pytest.fixture(scope="module")
def first(recipe: Recipe, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished run of 3 steps."""
    folder = tmp_path_factory.mktemp("first") / "run"
    assert train(replace(recipe, optim=replace(recipe.optim, epochs=0.5, warmup_epochs=0.0)), folder, CPU)
    return folder


def test_a_run_made_ready_for_an_accelerator_begins_with_another_one_too(
    first, recipe, monkeypatch, tmp_path
):
    def choose_kernels(kind, device, autocast) -> choose.Kernels:
        # Nothing is compiled before it is called.
        return choose.choose_kernels(kind, torch.device("meta"), autocast)

    monkeypatch.setattr("unic.train.build_run.choose_kernels", choose_kernels)
    _, state = build_run(replace(recipe, start=str(first)), RunDir(tmp_path), CPU)
    assert state.start is not None and state.start.statistics
    assert any(isinstance(module, FastGelu) for module in state.student.encoder.modules())


@pytest.fixture
def imported(first: Path, tmp_path: Path) -> Path:
    """The same student as an import leaves it: no state of the optimiser, no metrics, no meaning of steps."""
    folder = tmp_path / "imported"
    folder.mkdir()
    shutil.copy(first / "config.json", folder)
    (checkpoint,) = (first / "checkpoints").iterdir()

    def write(temporary: Path) -> None:
        shutil.copy(checkpoint / "model.safetensors", temporary)
        statistics = load_file(checkpoint / "statistics.safetensors")
        save_file(
            {k: v for k, v in statistics.items() if k != "window"}, temporary / "statistics.safetensors"
        )
        (temporary / "meta.json").write_text(
            json.dumps({"step": 0, "teachers": {}, "imported": {"file": "x"}})
        )

    write_folder(folder / "checkpoints" / "step-00000000", write)
    return folder


@pytest.fixture
def begin(recipe: Recipe, tmp_path: Path, change) -> Callable[..., TrainState]:
    """The state at step 0 of a run with these fields."""
    return lambda start, **changes: build_run(
        change(recipe, {"start": str(start), **changes}), RunDir(tmp_path / "new"), CPU
    )[1]


def tensors(run: Path, name: str) -> dict[str, torch.Tensor]:
    (checkpoint,) = (run / "checkpoints").iterdir()
    return load_file(checkpoint / f"{name}.safetensors")


def buffers(state: TrainState) -> dict[str, torch.Tensor]:
    return {
        f"{name}.{key}": tensor
        for name, standardizer in state.standardizers.items()
        for key, tensor in standardizer.state_dict().items()
    }


def test_the_first_outputs_and_statistics_are_those_of_the_start(first, imported, begin):
    images = torch.randint(0, 256, (3, 3, 32, 32), dtype=torch.uint8)
    saved = read_run(first)  # another reader than the one under test
    expected = saved.ladder(saved.encoder.block_outputs(images))
    statistics = tensors(first, "statistics")
    del statistics["window"]
    for start in (first, imported):
        state = begin(start, seed=7)  # fresh weights would be others
        outputs = state.student(images)
        for name, tokens in expected.items():
            torch.testing.assert_close(outputs[name].cls, tokens.cls, rtol=1e-5, atol=1e-6)
            torch.testing.assert_close(outputs[name].patches, tokens.patches, rtol=1e-5, atol=1e-6)
        assert buffers(state).keys() == statistics.keys()
        assert all(torch.equal(buffers(state)[key], statistics[key]) for key in statistics)
        assert state.step == 0 and not state.optimizer.state


def test_positions_are_resampled_to_another_image_size(first, begin):
    state = begin(first, student={"image_size": 48}, data={"views": replace(_views(first), image_size=48)})
    there = tensors(first, "model")
    for key, tensor in state.student.state_dict().items():
        if key != "encoder.model.pos_embed":
            assert torch.equal(tensor, there[key]), key
    expected = resample_abs_pos_embed(there["encoder.model.pos_embed"], [6, 6], num_prefix_tokens=1)
    positions = state.student.encoder.model.pos_embed
    assert positions.shape == (1, 1 + 36, 32)
    torch.testing.assert_close(positions.data, expected, rtol=0.0, atol=1e-6)


def _views(run: Path):
    from unic.core.dataclass_json import from_dict
    from unic.data.config import ViewConfig

    return from_dict(ViewConfig, json.loads((run / "config.json").read_text())["data"]["views"])


def test_a_new_teacher_gets_fresh_projectors_and_one_left_out_is_named(first, begin, recipe, caplog):
    with caplog.at_level(logging.INFO):
        state = begin(first, teachers=(VIT, OTHER))
    assert (
        "projectors of: test_vit; statistics of: test_vit; fresh projectors: resnet10t; left out: test_convnext"
        in (caplog.text)
    )
    widths = state.student.ladder.widths
    fresh = build_student(recipe.student, recipe.ladder, widths, seed=recipe.seed).ladder.state_dict()
    there = tensors(first, "model")
    for key, tensor in state.student.ladder.state_dict().items():
        source = fresh[key] if ".resnet10t." in key else there[f"ladder.{key}"]
        assert torch.equal(tensor, source), key
    assert state.start.statistics == ("test_vit",)
    assert state.standardizers["resnet10t"].cls_mean.eq(0).all()


def test_only_teachers_without_statistics_are_measured_before_the_first_step(
    first, short, change, run, tmp_path
):
    still = change(short, {"statistics": {"rate_start": 0.0, "rate_end": 0.0, "warmup_batches": 2}})
    assert run(replace(still, start=str(first), teachers=(VIT, OTHER)), tmp_path / "new")
    there = tensors(first, "statistics")
    last = sorted((tmp_path / "new" / "checkpoints").iterdir())[-1]
    here = load_file(last / "statistics.safetensors")
    for key in ("cls_mean", "cls_std", "patch_mean", "patch_std"):
        assert torch.equal(here[f"test_vit.{key}"], there[f"test_vit.{key}"])
    assert here["resnet10t.cls_mean"].ne(0).any() and here["resnet10t.patch_std"].ne(1).any()


def test_an_encoder_file_brings_the_encoder_alone(first, begin, recipe):
    file = first / "encoder.safetensors"
    state = begin(file)
    there = tensors(first, "model")
    fresh = build_student(recipe.student, recipe.ladder, state.student.ladder.widths, seed=recipe.seed).ladder
    for key, tensor in state.student.encoder.model.state_dict().items():
        assert torch.equal(tensor, there[f"encoder.model.{key}"])
    for key, tensor in state.student.ladder.state_dict().items():
        assert torch.equal(tensor, fresh.state_dict()[key])
    assert state.start.sha256 == file_sha256(file) and state.start.statistics == ()


def test_features_that_were_not_standardised_leave_no_statistics(recipe, change, run, begin, tmp_path):
    plain = change(recipe, {"statistics": {"kind": "none"}, "optim": {"epochs": 0.2, "warmup_epochs": 0.0}})
    assert run(plain, tmp_path / "plain")
    assert begin(tmp_path / "plain").start.statistics == ()


def test_a_resumed_run_goes_on_from_its_own_checkpoint_whatever_became_of_the_start(
    first, short, run, tmp_path, metrics, state_of
):
    start = shutil.copytree(first, tmp_path / "start")
    begun = replace(short, start=str(start))
    assert run(begun, tmp_path / "whole")
    (manifest,) = (start / "checkpoints").glob("*/manifest.json")
    sha256 = file_sha256(manifest)
    half = shutil.copytree(tmp_path / "whole", tmp_path / "half")
    for step in (4, 5, 6):
        shutil.rmtree(half / "checkpoints" / f"step-{step:08d}")
    shutil.rmtree(start)
    assert run(begun, half)
    assert metrics(half) == metrics(tmp_path / "whole")
    expected = state_of(tmp_path / "whole")
    assert all(torch.equal(tensor, expected[name]) for name, tensor in state_of(half).items())
    for step in (3, 6):
        meta = json.loads((half / "checkpoints" / f"step-{step:08d}" / "meta.json").read_text())
        assert meta["start"] == {
            "path": str(start),
            "sha256": sha256,
            "statistics": ["test_convnext", "test_vit"],
        }
    with pytest.raises(FileNotFoundError, match="no such run folder or file"):
        run(begun, tmp_path / "again")


def test_an_imported_student_is_no_run_to_go_on_with(imported, short, run):
    sentence = f"imported student.*--start {re.escape(str(imported))} --out ANOTHER_FOLDER"
    with pytest.raises(ConfigError, match=sentence):
        run(short, imported)


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"student": {"width": 64}}, "holds a student of width 32, .* asks for width 64, .*in its config.json"),
        ({"student": {"depth": 1}}, "holds a student of .*depth 2, .* asks for .*depth 1, "),
        ({"student": {"heads": 4}}, "same shapes and another architecture .number of heads"),
        ({"ladder": {"hidden": 8}}, "the ladder of test_convnext.*set `ladder` as in its config.json, or start from"),
        ({"teachers": (f"{CONVNEXT}&layer=0", VIT)}, "learned test_convnext with .*, which has .* in this run"),
        (
            {"teachers": (VIT, OTHER), "statistics": {"rate_start": 0.1, "warmup_batches": 0}},
            "has no statistics of resnet10t, and .* too low .* set statistics.warmup_batches",
        ),
    ],
    ids=["width", "depth", "heads", "ladder", "teacher", "statistics"],
)  # fmt: skip
def test_what_does_not_fit_is_explained(changes, expected, first, begin):
    with pytest.raises((ConfigError, WeightsError), match=expected) as error:
        begin(first, **changes)
    assert str(first) in str(error.value) and "\n" not in str(error.value)


def test_drop_path_may_differ_from_that_of_the_start(first, begin):
    assert begin(first, student={"drop_path": 0.0}).start


def test_places_without_a_student_are_explained(first, begin, tmp_path):
    save_file({"pos_embed": torch.zeros(1, 17, 32)}, tmp_path / "other.safetensors")
    (tmp_path / "empty").mkdir()
    begun = tmp_path / "begun"
    begun.mkdir()
    shutil.copy(first / "config.json", begun)
    damaged = shutil.copytree(first, tmp_path / "damaged")
    (model,) = damaged.glob("checkpoints/*/model.safetensors")
    model.write_bytes(model.read_bytes()[:-1])
    for place, expected in (
        (tmp_path / "nowhere", "no such run folder or file"),
        (tmp_path / "other.safetensors", "is no student"),
        (tmp_path / "empty", "is no run folder: it has no config.json"),
        (begun, "holds no checkpoint yet"),
        (damaged, "every checkpoint there is damaged; give another"),
    ):
        with pytest.raises((ConfigError, WeightsError, FileNotFoundError), match=expected):
            begin(place)
    assert model.exists(), "another run's damaged checkpoint is not ours to rename"
