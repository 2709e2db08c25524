"""A setting in a process of its own, which takes one step when it is asked to."""

import contextlib
import multiprocessing
import os
import sys
import traceback
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import torch

from unic.core.errors import ConfigError, UnicError
from unic.core.registry import import_plugin
from unic.kernels.malloc import disable_trim
from unic.tools.bench.timed_step import StepFacts, Timed, TimedStep
from unic.train.recipe import Recipe


class SubprocessRunner:
    """A `TimedStep` that lives elsewhere; errors of its user's making arrive here."""

    def __init__(self, recipe: Recipe, device: torch.device, threads: int):
        # The profiler's library would report on standard error what it looks for and does not find.
        os.environ.setdefault("KINETO_LOG_LEVEL", "99")
        context = multiprocessing.get_context("spawn")  # a fork would share the memory that is to be measured
        self._connection, other = context.Pipe()
        self._process = context.Process(
            target=_serve, args=(other, recipe, str(device), threads, _plugins()), daemon=True
        )
        self._process.start()
        other.close()

    def step(self) -> Timed:
        return self._ask("step")

    def shares(self) -> dict[str, float]:
        return self._ask("shares")

    def count_host_syncs(self) -> int | None:
        return self._ask("count_host_syncs")

    def facts(self) -> StepFacts:
        return self._ask("facts")

    def close(self) -> None:
        self._connection.close()
        self._process.join()

    def _ask(self, what: str) -> Any:
        try:
            self._connection.send(what)
            answer, error = self._connection.recv()
        except (EOFError, ConnectionError, BrokenPipeError) as gone:
            self._process.join()
            raise ConfigError(
                f"a process that measures died (exit code {self._process.exitcode}); is memory full? use a smaller "
                f"--batch"
            ) from gone
        if error is not None:
            raise error
        return answer


def _serve(connection: Connection, recipe: Recipe, device: str, threads: int, plugins: list[Path]) -> None:
    os.environ["HF_HUB_OFFLINE"] = "1"
    torch.set_num_threads(threads)
    measured: TimedStep | None = None
    with contextlib.suppress(EOFError, KeyboardInterrupt):  # whoever asked is gone
        while True:
            what = connection.recv()
            try:
                if measured is None:
                    for plugin in plugins:
                        import_plugin(plugin)
                    if recipe.speed.kernels == "fast" and device == "cpu":
                        disable_trim()
                    measured = TimedStep(recipe, torch.device(device))
                connection.send((getattr(measured, what)(), None))
            except (UnicError, OSError, ImportError) as error:
                connection.send((None, error))
            except RuntimeError as error:  # its traceback would stay here
                connection.send((None, RuntimeError("".join(traceback.format_exception(error)))))


def _plugins() -> list[Path]:
    """The files that --plugin has named."""
    names = [name for name in sys.modules if name.startswith("unic_plugin_")]
    files = [sys.modules[name].__file__ for name in names]
    return [Path(file).absolute() for file in files if file]
