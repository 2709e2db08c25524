"""Run folders: written whole or not at all, locked, and never taken for another run's."""

import json
import logging
import os
import shutil
import stat
from pathlib import Path

import launch
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from unic.core import files
from unic.core.errors import ConfigError, WeightsError
from unic.core.files import (
    check_folder,
    file_sha256,
    newest_valid,
    remove_folder,
    remove_leftovers,
    write_atomically,
    write_folder,
    write_json,
)
from unic.core.run_folder import RunDir, open_run

CONFIG = {"seed": 0, "optim": {"lr": 1.0}, "speed": {"workers": 0}}
FREE = {"speed"}


def fill(folder: Path) -> None:
    (folder / "weights.bin").write_bytes(bytes(range(256)) * 4)
    write_json(folder / "meta.json", {"step": 3})


@pytest.fixture
def sealed(tmp_path: Path) -> Path:
    write_folder(tmp_path / "step-00000001", fill)
    return tmp_path / "step-00000001"


def test_a_folder_is_written_with_the_size_and_sha256_of_each_file(sealed: Path):
    manifest = json.loads((sealed / "manifest.json").read_text())
    # sha256sum of the 1,024 bytes, computed by coreutils
    assert manifest["weights.bin"] == {
        "size": 1024,
        "sha256": "785b0751fc2c53dc14a4ce3d800e69ef9ce1009eb327ccf458afe09c242c26c9",
    }
    assert set(manifest) == {"weights.bin", "meta.json"}
    check_folder(sealed)
    assert not list(sealed.parent.glob(".tmp-*"))


@pytest.mark.parametrize("name", ["file_sha256", "_fsync", "write_json"])
@pytest.mark.parametrize("error", [OSError, KeyboardInterrupt])
def test_an_error_at_any_point_of_writing_leaves_no_folder(
    name: str, error: type, tmp_path: Path, monkeypatch
):
    """Before the manifest, at it, and between it and the move."""
    fired = []

    def fail(*_: object) -> None:
        fired.append(name)
        raise error

    monkeypatch.setattr(files, name, fail)
    with pytest.raises(error):
        write_folder(tmp_path / "step-00000001", fill)
    assert fired == [name] and not list(tmp_path.iterdir())


def test_an_error_in_what_fills_the_folder_or_in_the_move_leaves_no_folder(tmp_path: Path, monkeypatch):
    def half(folder: Path) -> None:
        (folder / "weights.bin").write_bytes(b"half")
        raise OSError(28, "No space left on device")

    with pytest.raises(OSError, match="No space left"):
        write_folder(tmp_path / "step-00000001", half)

    def refuse(*_: object) -> None:
        raise PermissionError

    with monkeypatch.context() as patch, pytest.raises(PermissionError):
        patch.setattr(Path, "rename", refuse)
        write_folder(tmp_path / "step-00000001", fill)
    assert not list(tmp_path.iterdir())


@settings(max_examples=500, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    st.sampled_from(["weights.bin", "meta.json", "manifest.json"]), st.integers(0, 10**6), st.integers(0, 7)
)
def test_every_flipped_bit_is_found(sealed: Path, name: str, offset: int, bit: int):
    path = sealed / name
    content = path.read_bytes()
    flipped = bytearray(content)
    flipped[offset % len(content)] ^= 1 << bit
    path.write_bytes(flipped)
    try:
        with pytest.raises(WeightsError):
            check_folder(sealed)
    finally:
        path.write_bytes(content)
    check_folder(sealed)


@settings(max_examples=100, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.sampled_from(["weights.bin", "meta.json", "manifest.json"]), st.floats(0, 1))
def test_every_missing_end_is_found(sealed: Path, name: str, share: float):
    """But for the line break after the manifest, which says nothing."""
    path = sealed / name
    content = path.read_bytes()
    path.write_bytes(content[: int(share * (len(content) - 2))])
    try:
        with pytest.raises(WeightsError, match=name):
            check_folder(sealed)
    finally:
        path.write_bytes(content)


@pytest.mark.parametrize(
    "manifest", ["[]", "3", '{"weights.bin": 1}', '{"weights.bin": {}}', '{"../x": null}', "\0"]
)
def test_a_manifest_of_another_form_is_a_damaged_one(manifest: str, sealed: Path):
    (sealed / "manifest.json").write_text(manifest)
    with pytest.raises(WeightsError):
        check_folder(sealed)


def test_the_newest_valid_folder_is_used_and_damaged_ones_are_named(tmp_path: Path, caplog):
    for number in (9, 10, 100):
        write_folder(tmp_path / f"step-{number:08d}", fill)
    (tmp_path / "step-12").mkdir()  # not ours
    assert newest_valid(tmp_path, set_aside=True) == tmp_path / "step-00000100"
    assert not caplog.records
    (tmp_path / "step-00000100" / "weights.bin").write_bytes(b"")
    for _ in range(2):  # a reader without write access changes nothing
        assert newest_valid(tmp_path, set_aside=False) == tmp_path / "step-00000010"
    assert "step-00000100/weights.bin is damaged" in caplog.text
    assert newest_valid(tmp_path, set_aside=True) == tmp_path / "step-00000010"
    assert (tmp_path / "step-00000100.corrupt").is_dir()
    for number in (9, 10):
        (tmp_path / f"step-{number:08d}" / "meta.json").unlink()
    with pytest.raises(WeightsError, match=r"damaged \(2\); remove the folder to start again"):
        newest_valid(tmp_path, set_aside=True)
    with pytest.raises(WeightsError, match=r"damaged \(3\)"):
        newest_valid(tmp_path, set_aside=True)


def test_no_folder_at_all_is_no_error(tmp_path: Path):
    assert newest_valid(tmp_path, set_aside=True) is None
    assert newest_valid(tmp_path / "none", set_aside=True) is None


def test_leftovers_are_removed_and_nothing_else(sealed: Path):
    parent = sealed.parent
    (parent / ".tmp-unic-abc").mkdir()
    (parent / ".tmp-unic-abc" / "weights.bin").write_bytes(b"half")
    (parent / ".tmp-unic-abc-config.json").write_text("{")
    (parent / "step-00000000.corrupt").mkdir()
    remove_leftovers(parent)
    assert {path.name for path in parent.iterdir()} == {sealed.name, "step-00000000.corrupt"}


def test_a_removal_that_is_killed_half_way_leaves_nothing_that_looks_whole(sealed: Path, monkeypatch):
    def killed(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(shutil, "rmtree", killed)
        remove_folder(sealed)
    assert newest_valid(sealed.parent, set_aside=True) is None
    remove_leftovers(sealed.parent)
    assert not list(sealed.parent.iterdir())


def test_a_file_is_replaced_whole_or_not_at_all(tmp_path: Path, monkeypatch):
    path = tmp_path / "a.json"
    write_atomically(path, b"old")

    def full(_: int) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch, pytest.raises(OSError, match="No space"):
        patch.setattr(os, "fsync", full)
        write_atomically(path, b"new")
    assert path.read_bytes() == b"old" and list(tmp_path.iterdir()) == [path]
    write_atomically(path, b"new")
    assert path.read_bytes() == b"new"
    # The umask of the user decides who may read it, and nobody else may write.
    assert not stat.S_IMODE(path.stat().st_mode) & 0o022


def test_a_new_run_says_what_it_is_and_on_what_it_runs(tmp_path: Path):
    with open_run(tmp_path / "a" / "b", CONFIG, free_to_change=FREE) as opened:
        assert opened.folder == tmp_path / "a" / "b"
    assert json.loads((tmp_path / "a" / "b" / "config.json").read_text()) == CONFIG
    environment = json.loads((tmp_path / "a" / "b" / "environment.json").read_text())
    assert {"time", "command", "python", "platform", "processors", "threads", "packages"} <= set(environment)


def test_a_run_is_taken_up_with_the_same_or_a_harmless_configuration(tmp_path: Path):
    for workers in (0, 0, 4):
        config = CONFIG | {"speed": {"workers": workers}}
        with open_run(tmp_path, config, free_to_change=FREE):
            pass
        assert json.loads((tmp_path / "config.json").read_text()) == config


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"seed": 1}, "seed: 0 there, 1 asked for"),
        ({"optim": {"lr": 2.0}}, "optim.lr: 1.0 there, 2.0 asked for"),
        ({"optim": {"lr": 1.0, "beta": 3}}, "optim.beta: null there, 3 asked for"),
    ],
)
def test_another_configuration_is_refused_with_the_difference(change: dict, said: str, tmp_path: Path):
    with open_run(tmp_path, CONFIG, free_to_change=FREE):
        (tmp_path / "checkpoints" / "step-00000003").mkdir(parents=True)
    before = (tmp_path / "config.json").read_bytes()
    with pytest.raises(ConfigError) as refused, open_run(tmp_path, CONFIG | change, free_to_change=FREE):
        pass
    assert said in str(refused.value) and "give another --out" in str(refused.value)
    assert (tmp_path / "config.json").read_bytes() == before


def test_a_mistake_before_the_first_checkpoint_does_not_spoil_the_folder(tmp_path: Path):
    for seed in (1, 2):
        with open_run(tmp_path, CONFIG | {"seed": seed}, free_to_change=FREE):
            pass
    assert json.loads((tmp_path / "config.json").read_text())["seed"] == 2


def test_other_peoples_temporary_files_are_left_alone(tmp_path: Path):
    (tmp_path / ".tmp-mine").mkdir()
    (tmp_path / ".tmp-mine" / "keep").write_text("mine")
    with pytest.raises(ConfigError, match="no run of unic"), open_run(tmp_path, CONFIG, free_to_change=FREE):
        pass
    assert (tmp_path / ".tmp-mine" / "keep").read_text() == "mine"


def test_a_damaged_line_is_named_and_left_out(tmp_path: Path, caplog: pytest.LogCaptureFixture):
    (tmp_path / "metrics.jsonl").write_bytes(b'{"step": 1}\n\0\0\0\n{"step": 3}\n{"st')
    assert [record["step"] for record in RunDir(tmp_path).read("metrics.jsonl")] == [1, 3]
    assert "line 2 is damaged" in caplog.text


def test_files_and_foreign_folders_are_refused_and_untouched(tmp_path: Path):
    (tmp_path / "file").write_text("mine")
    (tmp_path / "thesis").mkdir()
    (tmp_path / "thesis" / "chapter.tex").write_text("mine")
    for name, said in (("file", "is a file"), ("thesis", r"no run of unic \(chapter.tex\)")):
        with pytest.raises(ConfigError, match=said), open_run(tmp_path / name, CONFIG, free_to_change=FREE):
            pass
    assert sorted(path.name for path in tmp_path.rglob("*")) == ["chapter.tex", "file", "thesis"]


def test_a_start_that_was_killed_before_its_configuration_stood_can_be_repeated(tmp_path: Path):
    (tmp_path / "run.lock").write_text("process 1 on nowhere\n")
    (tmp_path / ".tmp-unic-0123-config.json").write_text("{")
    with open_run(tmp_path, CONFIG, free_to_change=FREE):
        pass
    assert {path.name for path in tmp_path.iterdir()} == {"run.lock", "config.json", "environment.json"}


def test_a_damaged_configuration_is_named(tmp_path: Path):
    with open_run(tmp_path, CONFIG, free_to_change=FREE):
        pass
    (tmp_path / "config.json").write_text("{")
    with (
        pytest.raises(ConfigError, match=r"config\.json: not a JSON file"),
        open_run(tmp_path, CONFIG, free_to_change=FREE),
    ):
        pass


def test_of_two_processes_one_gets_the_folder_and_the_other_its_holder(tmp_path: Path):
    """In this order: both start, one holds; the other is refused; the holder leaves; the folder is free."""
    with open_run(tmp_path, CONFIG, free_to_change=FREE):
        (said,) = launch.on_ranks(1, _attempt, str(tmp_path))
        assert said.startswith(f"ConfigError: {tmp_path} is in use by process {os.getpid()} on ")
    assert launch.on_ranks(1, _attempt, str(tmp_path)) == ["open"]


def _attempt(folder: str) -> str:
    with open_run(Path(folder), CONFIG, free_to_change=FREE):
        return "open"


def test_metrics_survive_a_half_line_and_are_cut_after_a_step(tmp_path: Path):
    opened = RunDir(tmp_path)
    assert opened.read("metrics.jsonl") == []
    for step in (1, 2, 3, 4):
        opened.append("metrics.jsonl", {"step": step})
    with (tmp_path / "metrics.jsonl").open("a") as file:
        file.write('{"step": 5')
    assert [record["step"] for record in opened.read("metrics.jsonl")] == [1, 2, 3, 4]
    opened.cut_after("metrics.jsonl", 3)
    opened.append("metrics.jsonl", {"step": 4})
    assert (tmp_path / "metrics.jsonl").read_text() == "".join(f'{{"step": {n}}}\n' for n in (1, 2, 3, 4))


def test_sha256_of_the_empty_file(tmp_path: Path):
    (tmp_path / "empty").write_bytes(b"")
    assert (
        file_sha256(tmp_path / "empty") == "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"
    )


@settings(max_examples=60, deadline=None)
@given(
    actions=st.lists(
        st.tuples(st.sampled_from(["save", "spoil", "kill", "start"]), st.integers(0, 99)), max_size=12
    )
)
def test_after_any_sequence_of_saves_damages_kills_and_starts_the_newest_whole_one_is_found(
    tmp_path_factory, actions
):
    parent = tmp_path_factory.mktemp("checkpoints")
    whole, step = [], 0
    for action, number in actions:
        if action == "save":
            step += 1
            write_folder(parent / f"step-{step:08d}", fill)
            whole.append(step)
        elif action == "spoil" and whole:
            spoilt = whole.pop(number % len(whole))
            (parent / f"step-{spoilt:08d}" / "weights.bin").write_bytes(b"?")
        elif action == "kill":
            (parent / f".tmp-unic-{number}-x").mkdir(exist_ok=True)
        elif action == "start":
            remove_leftovers(parent)
            logging.disable()
            found = _newest(parent)
            logging.disable(logging.NOTSET)
            assert found == (parent / f"step-{whole[-1]:08d}" if whole else None)


def _newest(parent: Path) -> Path | None:
    try:
        return newest_valid(parent, set_aside=True)
    except WeightsError:
        return None
