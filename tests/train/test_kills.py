"""Runs that are stopped from outside, at any moment: nothing is lost, and the end is the same to the bit."""

import json
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import launch
import pytest

from unic.core.dataclass_json import to_dict
from unic.core.files import check_folder
from unic.train.recipe import Recipe

NUM_STEPS, EVERY = 48, 3
STATE_FILES = ("model.safetensors", "optimizer.safetensors", "statistics.safetensors", "meta.json")


@pytest.fixture(scope="module")
def uninterrupted(recipe: Recipe, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a run that nothing disturbed."""
    folder = tmp_path_factory.mktemp("uninterrupted")
    (folder / "config.json").write_text(json.dumps(to_dict(recipe)))
    words = ["distill", str(folder / "config.json"), "--out", str(folder / "run"), "--device", "cpu"]
    assert launch.finish(launch.unic(words, folder / "log")) == [0], (folder / "log").read_text()
    return folder / "run"


@pytest.fixture
def words(recipe: Recipe, config: Callable[[Recipe], str], tmp_path: Path) -> list[str]:
    return ["distill", config(recipe), "--out", str(tmp_path / "run"), "--device", "cpu"]


def num_lines(run: Path) -> int:
    path = run / "metrics.jsonl"
    return path.read_bytes().count(b"\n") if path.exists() else 0


def steps_saved(run: Path) -> list[int]:
    """Steps with a checkpoint; each must be whole."""
    found = sorted((run / "checkpoints").glob("step-*"))
    for folder in found:
        check_folder(folder)
    return [int(folder.name[-8:]) for folder in found]


def wait_for(condition: Callable[[], bool], process: launch.BaseProcess | subprocess.Popen) -> None:
    deadline = time.monotonic() + launch.PATIENCE_SECONDS
    alive = process.is_alive if isinstance(process, launch.BaseProcess) else lambda: process.poll() is None
    while not condition() and alive() and time.monotonic() < deadline:
        time.sleep(0.002)


def wait_for_lines(run: Path, num: int, process: launch.BaseProcess | subprocess.Popen) -> None:
    wait_for(lambda: num_lines(run) >= num, process)


def kill_and_resume(words: list[str], run: Path, log: Path, kills: list[tuple[int, float]]) -> int:
    """Kills the run after so many more steps and seconds, once for each pair; then lets it end. Gives the kills."""
    num_killed = 0
    for number, (steps, seconds) in enumerate(kills):
        saved_before = max(steps_saved(run), default=0)
        goal = saved_before + steps
        process = launch.unic([*words, "--speed.workers", str(number % 2 * 2)], log)
        wait_for_lines(run, goal if steps else 0, process)
        time.sleep(seconds)
        num_killed += process.is_alive()
        process.kill()
        process.join()
        # The line of a step follows the checkpoint of the steps before it.
        announced = (num_lines(run) - 1) // EVERY * EVERY
        assert max(steps_saved(run), default=0) >= max(saved_before, announced)
    assert launch.finish(launch.unic(words, log)) == [0], log.read_text()
    return num_killed


def assert_same_run(run: Path, other: Path, metrics: Callable[[Path], list]) -> None:
    assert steps_saved(run) == steps_saved(other) == [NUM_STEPS - EVERY, NUM_STEPS]
    for name in STATE_FILES:
        paths = [folder / "checkpoints" / f"step-{NUM_STEPS:08d}" / name for folder in (run, other)]
        assert paths[0].read_bytes() == paths[1].read_bytes(), name
    assert (run / "encoder.safetensors").read_bytes() == (other / "encoder.safetensors").read_bytes()
    assert metrics(run) == metrics(other)
    assert not list(run.rglob(".tmp-*"))


def test_a_run_killed_twice_ends_with_the_same_bits(words, uninterrupted, metrics, tmp_path):
    kills = [(7, 0.004), (10, 0.011)]
    assert kill_and_resume(words, tmp_path / "run", tmp_path / "log", kills) == 2
    assert_same_run(tmp_path / "run", uninterrupted, metrics)


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(3))
def test_a_run_killed_ten_times_ends_with_the_same_bits(seed, words, uninterrupted, metrics, tmp_path):
    """Moments: any time in a start's first second, or within 50 ms of the end of a step."""
    draw = random.Random(seed)
    kills = [(0, draw.uniform(0, 1.0)) for _ in range(4)]
    kills += [(draw.randint(1, 6), draw.uniform(0, 0.05)) for _ in range(6)]
    draw.shuffle(kills)
    # Where lines are noticed late, on a busy machine, the run is over before the last of them.
    assert kill_and_resume(words, tmp_path / "run", tmp_path / "log", kills) >= 3
    assert_same_run(tmp_path / "run", uninterrupted, metrics)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_leaves_a_checkpoint_and_exit_code_143(number, words, uninterrupted, metrics, tmp_path):
    run, log = tmp_path / "run", tmp_path / "log"
    process = launch.unic(words, log)
    wait_for_lines(run, 10, process)
    os.kill(process.pid, number)
    assert launch.finish(process) == [143], log.read_text()
    assert steps_saved(run)[-1] == num_lines(run) < NUM_STEPS
    assert number.name in log.read_text() and "Traceback" not in log.read_text()
    assert launch.finish(launch.unic(words, log)) == [0]
    assert_same_run(run, uninterrupted, metrics)


def test_a_second_signal_ends_the_run_at_once_and_loses_no_checkpoint(
    words, uninterrupted, metrics, tmp_path
):
    """At once is not at the end of a step: there may be no new checkpoint, and the old ones are whole."""
    log, run = tmp_path / "log", tmp_path / "run"
    process = launch.unic(words, log)
    wait_for_lines(run, 10, process)
    for _ in range(2):
        os.kill(process.pid, signal.SIGTERM)
    assert launch.finish(process) == [143]
    assert steps_saved(run)[-1] >= 9
    assert launch.finish(launch.unic(words, log)) == [0]
    assert_same_run(run, uninterrupted, metrics)


@pytest.mark.slow
def test_sigterm_under_torchrun_leaves_a_checkpoint_of_all_processes(words, recipe, metrics, tmp_path):
    """Bit-identical needs the same number of processes, so the run to compare with has two as well."""
    runs = [tmp_path / "run", tmp_path / "whole"]
    options = ["--standalone", "--nproc-per-node", "2", "--no-python"]
    torchrun = [sys.executable, "-m", "torch.distributed.run", *options]
    unic = [sys.executable, "-c", "from unic.cli import main; raise SystemExit(main())"]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}

    def start(folder: Path) -> subprocess.Popen:
        command = [*torchrun, *unic, *words[:2], "--out", str(folder), "--device", "cpu"]
        return subprocess.Popen(command, env=environment, stderr=subprocess.PIPE, text=True)

    stopped = start(runs[0])
    wait_for_lines(runs[0], 10, stopped)
    stopped.terminate()
    said = stopped.communicate(timeout=60)[1]
    assert "SIGTERM" in said
    assert steps_saved(runs[0])[-1] == num_lines(runs[0]) < NUM_STEPS
    for folder in runs:
        process = start(folder)
        assert process.wait(120) == 0, process.communicate()[1]
    assert_same_run(*runs, metrics)
