"""Who am I, and what do the others say: launchers' variables, and results and errors that reach everyone."""

import os
from pathlib import Path

import launch
import pytest
import torch

from unic.core import distributed
from unic.core.distributed import process_group, run_on_all_ranks, run_on_rank0
from unic.core.errors import ConfigError, DataError

LAUNCHERS = {
    "torchrun": ("RANK", "WORLD_SIZE", "LOCAL_RANK"),
    "slurm": ("SLURM_PROCID", "SLURM_STEP_NUM_TASKS", "SLURM_LOCALID"),
    "mpi": ("OMPI_COMM_WORLD_RANK", "OMPI_COMM_WORLD_SIZE", "OMPI_COMM_WORLD_LOCAL_RANK"),
}


@pytest.fixture(autouse=True)
def no_launcher(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in (*sum(LAUNCHERS.values(), ()), "SLURM_STEP_NODELIST", "SLURM_NODELIST"):
        monkeypatch.delenv(name, raising=False)


@pytest.mark.parametrize(
    ("nodes", "first"),
    [
        ("node7", "node7"),
        ("node7,node9", "node7"),
        ("node[03-07,9],other", "node03"),
        ("node[9,11-12]", "node9"),
        ("login,node[1-2]", "login"),
        ("gpu-a[001-002],gpu-b[001-002]", "gpu-a001"),
        ("rack[0-1]n[2-3]", "rack0n2"),
        ("node[1-2]-ib", "node1-ib"),
        ("10.0.0.[5-8]", "10.0.0.5"),
    ],
)
def test_first_host_of_a_slurm_node_list(nodes: str, first: str, monkeypatch: pytest.MonkeyPatch):
    """As `scontrol show hostnames` prints them."""
    monkeypatch.setenv("SLURM_NODELIST", nodes)
    assert distributed._first_host() == first
    monkeypatch.setenv("SLURM_STEP_NODELIST", "step1,step2")
    assert distributed._first_host() == "step1"


def test_without_slurm_the_first_host_is_this_one():
    assert distributed._first_host() == "127.0.0.1"


@pytest.mark.parametrize("names", LAUNCHERS.values(), ids=LAUNCHERS)
def test_position_comes_from_the_launcher(names: tuple[str, ...], monkeypatch: pytest.MonkeyPatch):
    assert distributed._position() is None
    for name, value in zip(names[:2], ("5", "8"), strict=True):
        monkeypatch.setenv(name, value)
    assert distributed._position() is None  # a part of the variables says nothing
    monkeypatch.setenv(names[2], "1")
    assert distributed._position() == (5, 8, 1)


def test_torchrun_inside_of_a_slurm_job_is_torchrun(monkeypatch: pytest.MonkeyPatch):
    for names, values in ((LAUNCHERS["slurm"], "010"), (LAUNCHERS["torchrun"], "341")):
        for name, value in zip(names, values, strict=True):
            monkeypatch.setenv(name, value)
    assert distributed._position() == (3, 4, 1)


def test_alone_everything_is_local():
    with process_group("cpu") as device:
        assert device == torch.device("cpu")
        assert (distributed.rank(), distributed.world_size(), distributed.is_main()) == (0, 1, True)
        assert run_on_rank0(lambda: 3) == run_on_all_ranks(lambda: 3) == 3
        x = torch.tensor([1.0, 2.0])
        assert distributed.all_reduce_(x) is x and x.tolist() == [1.0, 2.0]
        for share in (run_on_rank0, run_on_all_ranks):
            with pytest.raises(ZeroDivisionError):
                share(lambda: 1 // 0)


def test_one_process_of_a_launcher_needs_no_group(monkeypatch: pytest.MonkeyPatch):
    for name, value in zip(LAUNCHERS["slurm"], "010", strict=True):
        monkeypatch.setenv(name, value)
    with process_group("cpu"):
        assert not torch.distributed.is_initialized()


def test_a_device_that_is_not_here_is_a_sentence():
    with pytest.raises(ConfigError, match="device 'abacus' cannot be used here"), process_group("abacus"):
        pass


def test_two_processes_add_and_learn_what_the_main_one_found():
    assert launch.on_ranks(2, _sum_and_main) == [(0, 2, 3.0, 2.0, 0), (1, 2, 3.0, 2.0, 0)]


def _sum_and_main() -> tuple:
    rank = distributed.rank()
    total = distributed.all_reduce_(torch.tensor(float(rank + 1))).item()
    largest = distributed.all_reduce_(torch.tensor(float(rank + 1)), torch.distributed.ReduceOp.MAX).item()
    return rank, distributed.world_size(), total, largest, run_on_rank0(distributed.rank)


@pytest.mark.parametrize("kind", [ConfigError, DataError, OSError, ImportError])
def test_an_error_on_one_process_is_an_error_on_both_and_they_go_on_talking(kind: type[Exception]):
    expected = [f"{kind.__name__}: process 0"] * 2
    assert launch.on_ranks(2, _fail_on_main, kind) == expected
    assert launch.on_ranks(2, _fail_together, kind, 0) == expected
    assert launch.on_ranks(2, _fail_together, kind, 1) == [f"{kind.__name__}: process 1"] * 2


def _fail_on_main(kind: type[Exception]) -> None:
    _then_add(run_on_rank0, kind, 0)


def _fail_together(kind: type[Exception], rank: int) -> None:
    _then_add(run_on_all_ranks, kind, rank)


def _then_add(share, kind: type[Exception], rank: int) -> None:
    def fail() -> None:
        if distributed.rank() == rank:
            raise kind(f"process {distributed.rank()}")

    try:
        share(fail)
    finally:
        assert distributed.all_reduce_(torch.ones(1)).item() == 2


def test_only_the_main_process_writes(tmp_path: Path):
    assert launch.on_ranks(3, _write, str(tmp_path)) == [str(tmp_path / "0")] * 3
    assert os.listdir(tmp_path) == ["0"]  # noqa: PTH208


def _write(folder: str) -> str:
    def write() -> str:
        path = Path(folder) / str(distributed.rank())
        path.touch()
        return str(path)

    return run_on_rank0(write)
