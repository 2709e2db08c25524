"""Processes that read images do not outlive the run they read for, however they are started and it ends."""

import multiprocessing
import os
import time
from collections.abc import Callable
from multiprocessing.connection import Connection
from pathlib import Path

import pytest
from torch.utils.data import DataLoader

from unic.data.worker_processes import end_with_main, leave_signals_to_main

PATIENCE_SECONDS = 30.0


def read_for_ever(method: str, begin: Callable[[int], None], pipe: Connection) -> None:
    loader = DataLoader(
        range(100), batch_size=None, num_workers=2, worker_init_fn=begin, multiprocessing_context=method
    )
    batches = iter(loader)
    next(batches)
    pipe.send([worker.pid for worker in batches._workers])
    time.sleep(10 * PATIENCE_SECONDS)


def lives(pid: int) -> bool:
    try:
        os.kill(pid, 0)
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except (ProcessLookupError, FileNotFoundError):
        return False


@pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="needs /proc")
@pytest.mark.parametrize("begin", [end_with_main, leave_signals_to_main])
@pytest.mark.parametrize("method", ["fork", "forkserver"])
def test_data_processes_end_when_the_one_that_reads_from_them_is_killed(method: str, begin):
    here, there = multiprocessing.Pipe()
    main = multiprocessing.get_context("spawn").Process(target=read_for_ever, args=(method, begin, there))
    main.start()
    assert here.poll(PATIENCE_SECONDS * 2)
    workers = here.recv()
    assert len(workers) == 2 and all(map(lives, workers))
    main.kill()
    main.join()
    deadline = time.monotonic() + PATIENCE_SECONDS
    while any(map(lives, workers)) and time.monotonic() < deadline:
        time.sleep(0.1)
    assert not any(map(lives, workers))
