"""A run folder, and how anything is written into one: whole or not at all.

RUN/ config.json  environment.json  metrics.jsonl  results.jsonl  checkpoints/step-00000100/  run.lock
"""

import contextlib
import json
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from unic.core.dataclass_json import differences, read_json
from unic.core.environment import environment
from unic.core.errors import ConfigError
from unic.core.files import TEMPORARY, read_lines, remove_leftovers, write_atomically, write_json
from unic.core.locks import refuse_if_locked


@contextlib.contextmanager
def open_run(
    folder: Path,
    config: dict[str, Any],
    *,
    free_to_change: set[str],
    complete: Callable[[Any], dict[str, Any]] = lambda config: config,
) -> Iterator["RunDir"]:
    """Creates the run folder, or takes up the one that stands there with the same configuration.

    A folder without a checkpoint has nothing to lose: its configuration may be replaced.
    free_to_change: fields ("speed", "data.max_bad") that may differ from those of the folder.
    complete: brings a configuration written by an earlier version up to date.
    Raises ConfigError when the folder is in use, belongs to another configuration, or is no run folder.
    """
    if folder.exists() and not folder.is_dir():
        raise ConfigError(f"{folder} is a file; the output must be a folder")
    try:
        folder.mkdir(parents=True, exist_ok=True)
        names = {p.name for p in folder.iterdir()}
    except OSError as error:
        raise _unwritable(folder, error) from error
    foreign = sorted(n for n in names if n != "run.lock" and not n.startswith(TEMPORARY))
    if foreign and "config.json" not in names:
        raise ConfigError(
            f"{folder} is not empty and no run of unic ({', '.join(foreign[:3])}); give --out an empty folder"
        )
    with refuse_if_locked(folder / "run.lock", str(folder)):
        if "config.json" in names:
            _check_config(folder, config, free_to_change, complete)
        remove_leftovers(folder)
        run = RunDir(folder)
        write_json(folder / "config.json", config)
        write_json(folder / "environment.json", environment())
        yield run


def _check_config(
    folder: Path, config: dict[str, Any], free: set[str], complete: Callable[[Any], dict[str, Any]]
) -> None:
    try:
        there = complete(read_json(folder / "config.json"))
    except ConfigError as error:
        raise ConfigError(
            f"{folder / 'config.json'} is not the configuration of a run ({error}); give another --out"
        ) from error
    if not any((folder / "checkpoints").glob("step-*")):
        return
    lines = sorted(differences(there, config))
    changed = [line for line in lines if not any(re.match(rf"{re.escape(name)}[.:]", line) for name in free)]
    if changed:
        raise ConfigError(
            f"{folder} holds a run with another configuration; give another --out or the same options. "
            f"Different: {'; '.join(changed[:10])}"
        )


class RunDir:
    """The files of one run. Only the main process writes."""

    def __init__(self, folder: Path):
        self.folder = folder
        self.checkpoints = folder / "checkpoints"

    def append(self, file: str, record: dict[str, Any]) -> None:
        """Adds one JSON line to `file` ("metrics.jsonl", "results.jsonl")."""
        with (self.folder / file).open("a") as lines:
            lines.write(json.dumps(record) + "\n")

    def read(self, file: str) -> list[dict[str, Any]]:
        path = self.folder / file
        return read_lines(path) if path.exists() else []

    def cut_after(self, file: str, step: int) -> None:
        """Drops the records of steps that a restart will repeat."""
        kept = [record for record in self.read(file) if record["step"] <= step]
        write_atomically(self.folder / file, "".join(json.dumps(record) + "\n" for record in kept).encode())


def _unwritable(folder: Path, error: OSError) -> ConfigError:
    return ConfigError(f"{folder} cannot be written to ({error.strerror}); give another --out")
