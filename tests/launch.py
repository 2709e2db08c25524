"""Child processes for tests of kills, signals and several ranks.

They are forked from a server that has imported torch and unic already, so that each costs a fraction of a second.
"""

import multiprocessing
import os
import socket
import sys
import traceback
from collections.abc import Callable, Mapping, Sequence
from contextlib import closing
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

_CONTEXT = multiprocessing.get_context("forkserver")
_CONTEXT.set_forkserver_preload(["unic.cli", "unic.train.loop", "unic.recipes", "tyro", "timm"])

PATIENCE_SECONDS = 120.0


def unic(words: Sequence[str], log: Path, environment: Mapping[str, str] | None = None) -> BaseProcess:
    """Starts the command `unic` in another process; what it says is added to the file `log`."""
    return _start(_unic, list(words), log, dict(environment or {}))


def ranks(
    num: int, words: Sequence[str], log: Path, environment: Mapping[str, str] | None = None
) -> list[BaseProcess]:
    """Starts `unic` in `num` processes of one job, the way torchrun does."""
    return [unic(words, log, {**variables, **(environment or {})}) for variables in _job(num)]


def distill_on_ranks(num: int, config: str, out: Path, options: Sequence[str] = ()) -> None:
    """Runs `unic distill` to its end in `num` processes of one job on the CPU."""
    log = out.with_name(f"{out.name}.log")
    codes = finish(*ranks(num, ["distill", config, "--out", str(out), "--device", "cpu", *options], log))
    assert codes == [0] * num, log.read_text()


def finish(*processes: BaseProcess) -> list[int | None]:
    """Waits for the processes; gives their exit codes."""
    for process in processes:
        process.join(PATIENCE_SECONDS)
        if process.is_alive():
            process.kill()
            process.join()
    return [process.exitcode for process in processes]


def on_ranks(num: int, function: Callable[..., Any], *arguments: Any) -> list[Any]:
    """What `function` gives in each of `num` processes of one job; an error comes as its type's name and text."""
    queue = _CONTEXT.Queue()
    processes = [_start(_answer, queue, function, arguments, variables) for variables in _job(num)]
    answers = dict(queue.get(timeout=PATIENCE_SECONDS) for _ in processes)
    finish(*processes)
    return [answers[rank] for rank in range(num)]


def _job(num: int) -> list[dict[str, str]]:
    with closing(socket.socket()) as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    shared = {"WORLD_SIZE": str(num), "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
    return [{"RANK": str(rank), "LOCAL_RANK": str(rank), **shared} for rank in range(num)]


def _start(target: Callable[..., Any], *arguments: Any) -> BaseProcess:
    process = _CONTEXT.Process(target=target, args=arguments)
    process.start()
    return process


def _unic(words: list[str], log: Path, environment: dict[str, str]) -> None:
    descriptor = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    os.dup2(descriptor, 1)
    os.dup2(descriptor, 2)
    os.environ.update(environment)
    import torch

    from unic.cli import main

    torch.set_num_threads(1)  # the machine is shared, and sums over threads could differ in their last bit
    sys.exit(main(words))


def _answer(queue: Any, function: Callable[..., Any], arguments: tuple, environment: dict[str, str]) -> None:
    os.environ.update(environment)
    import torch

    from unic.core import distributed

    torch.set_num_threads(1)
    with distributed.process_group("cpu", timeout_minutes=1):
        try:
            answer = function(*arguments)
        except Exception as error:
            traceback.print_exc()
            answer = f"{type(error).__name__}: {error}"
        queue.put((distributed.rank(), answer))
