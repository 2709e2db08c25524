"""The loop: what is skipped, refused, repeated, written down, and left alone."""

import contextlib
import dataclasses
import json
import logging
import math
import os
import random
import shutil
import signal
import time
from pathlib import Path

import launch
import numpy as np
import pytest
import timm
import torch
from safetensors.torch import save_file

from unic.cli import main
from unic.core.dataclass_json import from_dict, read_json
from unic.core.errors import ConfigError, NonFiniteError
from unic.core.files import check_folder
from unic.method.types import Tokens
from unic.teachers.live_teachers import LiveTeachers
from unic.train import loop
from unic.train.recipe import Recipe

NUM_STEPS = 6
# Batches that are measured before step 0, by the recipe's statistics.warmup_batches, within the length of the run.
NUM_MEASURED = 6


@pytest.fixture
def poison(monkeypatch):
    """Lets a teacher give NaN at certain steps."""

    def at(steps: tuple[int, ...], teacher: str = "test_vit", value: float = math.nan) -> None:
        calls = iter(range(-NUM_MEASURED, 999))

        def forward(self: LiveTeachers, batch) -> dict[str, Tokens]:
            features = real(self, batch)
            if next(calls) in steps:
                features[teacher].patches[0, 0, 0] = value
            return features

        real = LiveTeachers.forward
        monkeypatch.setattr(LiveTeachers, "forward", forward)

    return at


def assert_step_changed_nothing(state_of, run: Path, step: int) -> None:
    before, after = state_of(run, step), state_of(run, step + 1)
    assert before.keys() == after.keys()
    for name, tensor in before.items():
        assert torch.equal(tensor, after[name]), name
        assert torch.isfinite(tensor).all(), name


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_features_that_are_not_finite_move_neither_weights_nor_statistics(
    value, short, run, poison, state_of, metrics, caplog, tmp_path
):
    poison((2,), value=value)
    assert run(short, tmp_path / "run")
    assert_step_changed_nothing(state_of, tmp_path / "run", 2)
    (warning,) = [r.getMessage() for r in caplog.records if r.levelno == logging.WARNING]
    assert warning == "step 2: not finite: loss/test_vit/patches; the step is skipped"
    lines = metrics(tmp_path / "run")
    assert lines[2]["loss"] is None and all(line["loss"] > 0 for line in lines[:2] + lines[3:])


def test_a_gradient_that_is_not_finite_moves_neither_weights_nor_statistics(
    short, run, bad_gradient, state_of, when_known, caplog, tmp_path
):
    bad_gradient((2, 3, 5))  # never three in a row; a checkpoint of step 1 is due a step late
    assert run(short, tmp_path / "run")
    for step in (2, 3, 5):
        assert_step_changed_nothing(state_of, tmp_path / "run", step)
    assert not torch.equal(
        state_of(tmp_path / "run", 4)["model/encoder.model.cls_token"],
        state_of(tmp_path / "run", 5)["model/encoder.model.cls_token"],
    )
    for step in (2, 3, 5):
        assert f"step {step}: not finite: gradient; the step is skipped" in caplog.text
    assert caplog.text.count("not finite") == 3


def test_three_steps_in_a_row_end_the_run_with_the_teacher_the_step_and_exit_code_two(
    short, poison, config, state_of, tmp_path, capsys
):
    poison((2, 3, 4, 5))
    folder = tmp_path / "run"
    assert main(["distill", config(short), "--out", str(folder), "--device", "cpu"]) == 2
    said = capsys.readouterr().err
    assert "step 4: not finite: loss/test_vit/patches, for 3 steps in a row" in said
    assert "Traceback" not in said
    assert sorted(path.name[-1] for path in (folder / "checkpoints").iterdir()) == ["1", "2", "3", "4"]
    for path in (folder / "checkpoints").iterdir():
        check_folder(path)
    assert_step_changed_nothing(state_of, folder, 3)


def test_a_learning_rate_that_explodes_ends_the_run_before_weights_are_infinite(
    short, run, change, state_of, tmp_path
):
    mad = change(short, {"optim": {"lr": 1e30, "epochs": 2.0}, "log": {"keep": 99}})
    with pytest.raises(NonFiniteError, match="in a row"):
        run(mad, tmp_path / "run")
    assert all(torch.isfinite(tensor).all() for tensor in state_of(tmp_path / "run").values())


def test_metrics_carry_the_learning_rate_and_the_rate_that_were_used(short, run, metrics, tmp_path):
    """Closed forms: 3 steps of warm-up to 3e-3 * 4 / 256, then half a cosine of 3 steps."""
    assert run(short, tmp_path / "run")
    peak, least = 3e-3 * 4 / 256, 1e-6
    falling = [least + (peak - least) * (1 + math.cos(math.pi * k / 3)) / 2 for k in range(3)]
    lines = metrics(tmp_path / "run")
    assert [line["lr"] for line in lines] == pytest.approx([peak / 3, 2 * peak / 3, peak, *falling])
    rates = [0.001 + 0.999 * (1 + math.cos(math.pi * k / 6)) / 2 for k in range(6)]
    assert [line["rate"] for line in lines] == pytest.approx(rates)
    assert [line["epoch"] for line in lines] == pytest.approx([k / 6 for k in range(1, 7)])
    assert all(1 <= line["kept/test_vit"] + line["kept/test_convnext"] <= 2 for line in lines)


def test_no_weight_moves_faster_than_adamw_can_at_the_learning_rate_of_the_metrics(
    short, run, metrics, state_of, tmp_path
):
    """At the first step AdamW moves every entry by lr * (sign of its gradient + decay * entry)."""
    assert run(short, tmp_path / "run")
    lr = metrics(tmp_path / "run")[1]["lr"]
    before, after = (state_of(tmp_path / "run", step)["model/encoder.model.cls_token"] for step in (1, 2))
    moved = (after - before).abs()
    # In the second step the two moments may differ from each other by their betas: (1 + .9) / sqrt(1 + .99) < 1.5.
    assert 0 < moved.max() <= 1.5 * lr * (1 + 0.03 * before.abs().max())


def test_a_window_of_metrics_is_the_mean_of_its_steps_also_across_a_restart(
    short, run, change, metrics, tmp_path, monkeypatch
):
    assert run(short, tmp_path / "each")
    windows = change(short, {"log": {"every": 4}})
    stops = iter([False] * 2 + [True] * 9)
    with monkeypatch.context() as patch:
        patch.setattr(loop, "stop_requested", lambda: contextlib.nullcontext(lambda: next(stops)))
        assert not run(windows, tmp_path / "windows")
    assert run(windows, tmp_path / "windows")
    each, (four, two) = metrics(tmp_path / "each"), metrics(tmp_path / "windows")
    assert (four["step"], two["step"]) == (4, 6)
    for line, part in ((four, each[:4]), (two, each[4:])):
        for name in ("loss/test_vit/cls", "loss/test_convnext/patches", "kept/test_vit"):
            assert line[name] == pytest.approx(sum(record[name] for record in part) / len(part), rel=1e-5)


def test_validation_changes_nothing_and_is_the_mean_over_its_images(
    short, run, change, photos, state_of, metrics, tmp_path
):
    validated = change(short, {"data": {"val_root": (str(photos / "val"),)}, "log": {"validate_every": 0.5}})
    small = change(validated, {"speed": {"micro_batch": 2}})
    assert run(short, tmp_path / "without")
    assert run(validated, tmp_path / "with")
    assert run(small, tmp_path / "small")
    for name, tensor in state_of(tmp_path / "without").items():
        assert torch.equal(tensor, state_of(tmp_path / "with")[name]), name
    lines = [line for line in metrics(tmp_path / "with") if "val/loss" in line]
    assert [line["step"] for line in lines] == [3, 6]
    assert {name for name in lines[0] if name.startswith("val/")} == {
        "val/loss",
        *(
            f"val/loss/{teacher}/{kind}"
            for teacher in ("test_vit", "test_convnext")
            for kind in ("cls", "patches")
        ),
    }
    parts = [value for name, value in lines[-1].items() if name.startswith("val/loss/")]
    assert lines[-1]["val/loss"] == pytest.approx(sum(parts) / len(parts), rel=1e-6)
    # Batches of 2, 2 and 1 instead of 4 and 1, after gradients that were accumulated: rounding only.
    assert metrics(tmp_path / "small")[-1]["val/loss"] == pytest.approx(lines[-1]["val/loss"], rel=1e-5)


def test_the_global_generators_are_left_alone(short, change, config, photos, teacher_file, tmp_path):
    """In another process, because the checker of types of this one draws from Python's generator; so does tyro."""
    recipe = change(
        short,
        {
            "teachers": (*short.teachers, teacher_file()),
            "data": {"val_root": (str(photos / "val"),)},
            "speed": {"workers": 1},
        },
    )
    changed = launch.on_ranks(1, _generators_moved_by_a_run, config(recipe), str(tmp_path / "run"))
    assert changed == [[]]
    assert (tmp_path / "run" / "encoder.safetensors").exists()


def _generators_moved_by_a_run(config: str, out: str) -> list[str]:
    def states() -> dict[str, str]:
        return {
            "random": repr(random.getstate()),
            "numpy": repr(np.random.get_state()[1].tolist()),
            "torch": repr(torch.get_rng_state().tolist()),
        }

    before = states()
    recipe = from_dict(Recipe, read_json(Path(config)))
    assert loop.train(recipe, Path(out), torch.device("cpu"))
    return [name for name, state in states().items() if state != before[name]]


def test_two_seeds_give_two_runs_and_one_seed_gives_one(short, run, change, state_of, tmp_path):
    runs = [(short, "a"), (short, "b"), (change(short, {"seed": 1}), "c")]
    for recipe, name in runs:
        assert run(recipe, tmp_path / name)
    a, b, c = (state_of(tmp_path / name) for _, name in runs)
    assert all(torch.equal(a[name], b[name]) for name in a)
    assert not torch.equal(a["model/encoder.model.cls_token"], c["model/encoder.model.cls_token"])


@pytest.fixture
def teacher_file(tmp_path):
    """Writes weights of a teacher, other ones for another seed."""

    def write(seed: int = 0) -> str:
        with torch.random.fork_rng():
            torch.manual_seed(seed)
            model = timm.create_model("test_resnet", num_classes=0)
        save_file(model.state_dict(), tmp_path / "teacher.safetensors")
        return f"file:{tmp_path}/teacher.safetensors?model=test_resnet&image_size=32"

    return write


def test_other_weights_of_a_teacher_are_refused_by_its_name(short, run, change, teacher_file, tmp_path):
    recipe = change(short, {"teachers": (*short.teachers, teacher_file())})
    assert run(recipe, tmp_path / "run")
    assert run(recipe, tmp_path / "run")
    teacher_file(seed=1)
    with pytest.raises(
        ConfigError, match="weights or preprocessing of teacher are not those this run was started"
    ):
        run(recipe, tmp_path / "run")


def test_another_recipe_is_refused_with_every_difference(short, run, change, tmp_path):
    assert run(short, tmp_path / "run")
    before = (tmp_path / "run" / "config.json").read_bytes()
    other = change(
        short, {"optim": {"lr": 0.5}, "loss": {"drop_prob": 0.25}, "seed": 7, "speed": {"workers": 1}}
    )
    with pytest.raises(ConfigError) as refused:
        run(other, tmp_path / "run")
    said = str(refused.value)
    for difference in (
        "optim.lr: 0.003 there, 0.5 asked for",
        "loss.drop_prob: 0.5 there, 0.25 asked for",
        "seed: 0 there, 7 asked for",
    ):
        assert difference in said
    assert "workers" not in said
    assert (tmp_path / "run" / "config.json").read_bytes() == before


def test_harmless_changes_are_taken_up_and_written_down(short, run, change, tmp_path, state_of):
    """Killed after step 4, taken up with another speed and log: the same bits."""
    assert run(short, tmp_path / "whole")
    assert run(short, tmp_path / "run")
    for step in (5, 6):
        (tmp_path / "run" / "checkpoints" / f"step-0000000{step}").rename(tmp_path / f"old-{step}")
    other = change(short, {"speed": {"workers": 1}, "log": {"every": 2, "keep": 3, "checkpoint_steps": 2}})
    assert run(other, tmp_path / "run")
    assert json.loads((tmp_path / "run" / "config.json").read_text())["log"]["keep"] == 3
    one, same = state_of(tmp_path / "whole"), state_of(tmp_path / "run")
    assert all(torch.equal(tensor, same[name]) for name, tensor in one.items())


def test_metrics_after_the_restored_step_are_repeated_and_a_half_line_is_dropped(
    short, run, metrics, tmp_path
):
    assert run(short, tmp_path / "run")
    expected = metrics(tmp_path / "run")
    for step in (4, 5, 6):
        (tmp_path / "run" / "checkpoints" / f"step-0000000{step}").rename(tmp_path / f"old-{step}")
    with (tmp_path / "run" / "metrics.jsonl").open("a") as file:
        file.write('{"step": 7, "lo')
    assert run(short, tmp_path / "run")
    assert metrics(tmp_path / "run") == expected
    assert [line["step"] for line in expected] == list(range(1, NUM_STEPS + 1))


def test_changed_images_are_a_warning(short, run, change, tmp_path, photos, caplog):
    images = shutil.copytree(photos / "train", tmp_path / "images")
    recipe = change(short, {"data": {"root": (str(images),)}})
    assert run(recipe, tmp_path / "run")
    shutil.copy(images / "0.png", images / "24.png")
    assert run(recipe, tmp_path / "run")
    assert "the training images changed since this run was started (24 then, 25 now)" in caplog.text


def test_too_many_unreadable_images_end_the_run_and_a_few_do_not(
    short, run, change, when_known, tmp_path, photos
):
    images = shutil.copytree(photos / "train", tmp_path / "images")
    for number in (3, 4):
        (images / f"{number}.png").write_bytes(b"spoilt")
    recipe = change(short, {"data": {"root": (str(images),), "max_bad": 0.1}})
    assert run(recipe, tmp_path / "run")
    lines = [json.loads(line) for line in (tmp_path / "run" / "bad_images.0.jsonl").read_text().splitlines()]
    assert sorted(Path(line["path"]).name for line in lines) == ["3.png", "4.png"]
    with pytest.raises(ValueError, match="images cannot be read"):
        run(change(recipe, {"data": {"max_bad": 0.05}}), tmp_path / "strict")


def test_a_folder_in_use_is_refused_by_name_and_free_after_a_kill(recipe, config, tmp_path):
    folder, log = tmp_path / "run", tmp_path / "log"
    long = dataclasses.replace(recipe, optim=dataclasses.replace(recipe.optim, epochs=1000.0))
    words = ["distill", config(long), "--out", str(folder), "--device", "cpu"]
    holder = launch.unic([*words, "--speed.workers", "1"], log)
    deadline = time.monotonic() + launch.PATIENCE_SECONDS
    while not (folder / "metrics.jsonl").exists() and time.monotonic() < deadline:
        time.sleep(0.01)
    started = time.monotonic()
    assert launch.finish(launch.unic(words, tmp_path / "second")) == [2]
    assert time.monotonic() - started < 20  # long before the first run ends
    assert f"{folder} is in use by process {holder.pid} on " in (tmp_path / "second").read_text()
    assert holder.is_alive()
    holder.kill()
    holder.join()
    third = launch.unic(words, log)
    lines = (folder / "metrics.jsonl").read_bytes().count(b"\n")
    while (folder / "metrics.jsonl").read_bytes().count(b"\n") == lines and third.is_alive():
        time.sleep(0.01)
    os.kill(third.pid, signal.SIGTERM)
    assert launch.finish(third) == [143], log.read_text()


def test_bf16_follows_fp32(short, run, change, metrics, tmp_path):
    """Eight bits of mantissa: losses within a percent."""
    assert run(short, tmp_path / "fp32")
    assert run(change(short, {"speed": {"precision": "bf16"}}), tmp_path / "bf16")
    for one, other in zip(metrics(tmp_path / "fp32"), metrics(tmp_path / "bf16"), strict=True):
        assert other["loss"] == pytest.approx(one["loss"], rel=0.01)
