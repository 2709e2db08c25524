"""Checkpoints that are damaged, full disks, and what a restart takes up."""

import contextlib
import errno
import io
import logging
import resource
import shutil
from collections.abc import Callable
from pathlib import Path

import launch
import pytest

from unic.cli import main
from unic.core.errors import WeightsError
from unic.core.files import check_folder, newest_valid
from unic.train import checkpoint
from unic.train.recipe import Recipe

FILES = ("model.safetensors", "optimizer.safetensors", "statistics.safetensors", "meta.json", "manifest.json")
NUM_STEPS = 6


@pytest.fixture(scope="module")
def finished(short: Recipe, run, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of 6 steps with a checkpoint of each."""
    folder = tmp_path_factory.mktemp("finished") / "run"
    assert run(short, folder)
    return folder


@pytest.fixture
def copy(finished: Path, tmp_path: Path) -> Path:
    return shutil.copytree(finished, tmp_path / "run")


def flip(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


def halve(path: Path) -> None:
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def of_the_step_before(path: Path) -> None:
    shutil.copy(path.parent.with_name(f"step-{NUM_STEPS - 1:08d}") / path.name, path)


def step(run: Path, number: int = NUM_STEPS) -> Path:
    return run / "checkpoints" / f"step-{number:08d}"


@pytest.mark.parametrize("name", FILES)
@pytest.mark.parametrize("damage", [flip, halve, Path.unlink, of_the_step_before], ids=lambda f: f.__name__)
def test_a_damaged_checkpoint_is_set_aside_and_the_one_before_is_used(
    name: str, damage: Callable, copy: Path, caplog: pytest.LogCaptureFixture
):
    damage(step(copy) / name)
    assert newest_valid(copy / "checkpoints", set_aside=True) == step(copy, NUM_STEPS - 1)
    assert [record.levelno for record in caplog.records] == [logging.WARNING]
    blamed = FILES if (damage, name) == (of_the_step_before, "manifest.json") else (name,)
    assert any(file in caplog.text for file in blamed)
    assert not step(copy).exists()
    assert (copy / "checkpoints" / "step-00000006.corrupt").is_dir()


def test_a_run_whose_newest_checkpoints_are_damaged_ends_with_the_same_bits(
    short, run, copy, finished, metrics, caplog
):
    flip(step(copy, 6) / "optimizer.safetensors")
    (step(copy, 5) / "model.safetensors").unlink()
    with caplog.at_level(logging.INFO):
        assert run(short, copy)
    assert "resuming at step 4 of 6" in caplog.text
    for name in FILES:
        assert (step(copy) / name).read_bytes() == (step(finished) / name).read_bytes()
    assert metrics(copy) == metrics(finished)
    # A step that was damaged, repeated and damaged again has two names.
    flip(step(copy, 6) / "meta.json")
    assert run(short, copy)
    assert {path.name for path in (copy / "checkpoints").glob("*.corrupt")} == {
        "step-00000005.corrupt", "step-00000006.corrupt", "step-00000006-2.corrupt"
    }  # fmt: skip


def test_a_run_without_one_whole_checkpoint_is_never_begun_again_silently(short, run, copy):
    for folder in (copy / "checkpoints").iterdir():
        halve(folder / "model.safetensors")
    for _ in range(2):  # the second start finds only *.corrupt
        with pytest.raises(WeightsError, match=r"every checkpoint in .* is damaged \(6\); remove the folder"):
            run(short, copy)
    assert len(list((copy / "checkpoints").glob("*.corrupt"))) == NUM_STEPS


def test_weights_of_another_architecture_with_a_right_manifest_are_refused(short, run, copy, change):
    """Files that were moved from another run: what they hold is checked as well as that they are whole."""
    other = change(short, {"ladder": {"hidden": 8}})
    mixed = copy.with_name("mixed")
    assert run(other, mixed)
    for folder in (mixed / "checkpoints").iterdir():
        shutil.rmtree(folder)
    shutil.copytree(step(copy), step(mixed))
    with pytest.raises(WeightsError, match="another architecture"):
        run(other, mixed)


def test_old_checkpoints_are_removed_only_after_a_new_one_stands(short, run, change, tmp_path, monkeypatch):
    present = []

    def spy(*arguments):
        present.append(len(list((tmp_path / "run" / "checkpoints").glob("step-*"))))
        return write(*arguments)

    write = checkpoint.write_folder
    monkeypatch.setattr(checkpoint, "write_folder", spy)
    assert run(change(short, {"log": {"keep": 2}}), tmp_path / "run")
    assert present == [0, 1, 2, 2, 2, 2]
    assert sorted(path.name for path in (tmp_path / "run" / "checkpoints").iterdir()) == [
        "step-00000005", "step-00000006"
    ]  # fmt: skip


def full_disk(monkeypatch: pytest.MonkeyPatch, at_save: Callable[[int], bool]) -> list[int]:
    """Lets the disk be full in the middle of some saves: the weights are written, the optimiser's are not."""
    numbers = []

    def write(path: Path, tensors: dict) -> None:
        numbers.extend([len(numbers) + 1] if path.name.startswith("model") else [])
        if path.name.startswith("optimizer") and at_save(numbers[-1]):
            path.write_bytes(b"a part")
            raise OSError(errno.ENOSPC, "No space left on device", str(path))
        real(path, tensors)

    real = checkpoint.write_weights
    monkeypatch.setattr(checkpoint, "write_weights", write)
    return numbers


def test_a_disk_that_is_full_for_a_while_costs_a_warning(short, run, finished, tmp_path, monkeypatch, caplog):
    saves = full_disk(monkeypatch, lambda number: number in (2, 3))
    assert run(short, tmp_path / "run")
    assert saves == [1, 2, 3, 4, 5, 6]
    warnings = [r.getMessage() for r in caplog.records if r.levelno == logging.WARNING]
    assert len(warnings) == 2 and all("No space left on device" in text for text in warnings)
    assert "checkpoint of step 2 could not be written" in warnings[0]
    folders = sorted((tmp_path / "run" / "checkpoints").iterdir())
    assert [folder.name[-1] for folder in folders] == ["1", "4", "5", "6"]
    for name in FILES:
        assert (step(tmp_path / "run") / name).read_bytes() == (step(finished) / name).read_bytes()


def test_a_disk_that_is_full_at_the_end_is_an_error_and_the_last_checkpoint_stays(
    short, run, tmp_path, monkeypatch
):
    full_disk(monkeypatch, lambda number: number > 4)
    with pytest.raises(OSError, match="No space left on device"):
        run(short, tmp_path / "run")
    folders = sorted((tmp_path / "run" / "checkpoints").iterdir())
    assert [folder.name for folder in folders] == [f"step-0000000{n}" for n in (1, 2, 3, 4)]
    for folder in folders:
        check_folder(folder)
    monkeypatch.undo()
    assert run(short, tmp_path / "run")


def test_a_limit_on_file_size_is_explained_with_exit_code_two(short, config, tmp_path):
    """No injection: the operating system refuses to write more than 50 kB into a file."""
    code, said = launch.on_ranks(1, _distill_with_small_files, config(short), str(tmp_path / "run"))[0]
    assert code == 2
    assert "the checkpoint of step 1 could not be written" in said and "File too large" in said
    assert "Traceback" not in said
    assert not list((tmp_path / "run" / "checkpoints").iterdir())


def _distill_with_small_files(config: str, out: str) -> tuple[int, str]:
    resource.setrlimit(resource.RLIMIT_FSIZE, (50_000, resource.RLIM_INFINITY))
    with contextlib.redirect_stderr(io.StringIO()) as said:
        code = main(["distill", config, "--out", out, "--device", "cpu"])
    return code, said.getvalue()


def test_a_run_that_would_not_fit_on_the_disk_is_refused_at_once(short, run, tmp_path, monkeypatch):
    """Three checkpoints: two that are kept and one being written."""
    usage = shutil.disk_usage(tmp_path)._replace(free=100_000)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage)
    with pytest.raises(ValueError, match="GB free on this disk"):
        run(short, tmp_path / "run")
