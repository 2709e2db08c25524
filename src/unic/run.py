"""A run folder, and how anything is written into one: whole or not at all.

RUN/ config.json  environment.json  metrics.jsonl  results.jsonl  checkpoints/step-00000100/  run.lock
"""

import contextlib
import fcntl
import hashlib
import importlib.metadata
import json
import logging
import os
import platform
import re
import shutil
import socket
import sys
import time
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import torch

from unic.config import differences, read_json
from unic.errors import ConfigError, WeightsError

log = logging.getLogger(__name__)

MANIFEST = "manifest.json"

# How the names of our own unfinished files and folders begin; no other file is ever removed.
TEMPORARY = ".tmp-unic-"


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
    with _locked(folder):
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


def read_lines(path: Path) -> list[dict[str, Any]]:
    """The records of a file of JSON lines. A kill can cut the last line short: it is not a record yet.

    A damaged line elsewhere (a power cut) is named in the log and left out.
    """
    records = []
    for number, line in enumerate(path.read_bytes().splitlines(keepends=True), start=1):
        if not line.endswith(b"\n"):
            break
        try:
            records.append(json.loads(line))
        except ValueError:
            log.warning("%s: line %d is damaged and left out", path, number)
    return records


def environment() -> dict[str, Any]:
    """Versions, machine and command: what someone needs to repeat a result."""
    packages = ("unic", "torch", "torchvision", "timm", "numpy", "Pillow", "safetensors", "scikit-learn")
    accelerator = torch.accelerator.current_accelerator(check_available=True)
    return {
        "time": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
        "command": sys.argv,
        "python": platform.python_version(),
        "platform": platform.platform(),
        "processors": os.cpu_count(),
        "threads": torch.get_num_threads(),
        "accelerator": str(accelerator) if accelerator else None,
        "packages": {name: importlib.metadata.version(name) for name in packages},
    }


def write_atomically(path: Path, content: bytes) -> None:
    """Writes a file so that a reader, or a restart after a kill, sees the old content or the new, never a part."""
    temporary = path.with_name(f"{TEMPORARY}{uuid.uuid4().hex}-{path.name}")
    try:
        with temporary.open("wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    except OSError:
        temporary.unlink(missing_ok=True)
        raise


def write_json(path: Path, value: Any) -> None:
    write_atomically(path, (json.dumps(value, indent=2) + "\n").encode())


def write_folder(folder: Path, write: Callable[[Path], None]) -> None:
    """Lets `write` fill a temporary folder, seals it with a manifest of sha256 sums, then moves it into place.

    Safe against a kill at any instant: `folder` either does not exist or is complete.
    """
    temporary = folder.parent / f"{TEMPORARY}{uuid.uuid4().hex}"
    folder.parent.mkdir(parents=True, exist_ok=True)
    try:
        temporary.mkdir()
        write(temporary)
        files = {
            p.name: {"size": p.stat().st_size, "sha256": file_sha256(p)} for p in sorted(temporary.iterdir())
        }
        for name in files:
            _fsync(temporary / name)
        write_json(temporary / MANIFEST, files)
        _fsync(temporary)
        temporary.rename(folder)
        _fsync(folder.parent)
    except BaseException:
        shutil.rmtree(temporary, ignore_errors=True)
        raise


def check_folder(folder: Path) -> None:
    """Raises WeightsError naming the first file of `folder` that is not what its manifest says."""
    try:
        manifest = json.loads((folder / MANIFEST).read_text())
        for name, facts in manifest.items():
            found = {"size": (folder / name).stat().st_size, "sha256": file_sha256(folder / name)}
            if found != facts:
                raise WeightsError(
                    f"{folder / name} is damaged (its size or sha256 is not the one in {MANIFEST})"
                )
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        if isinstance(error, WeightsError):
            raise
        raise WeightsError(f"{folder}: {MANIFEST} or a file it names cannot be read ({error})") from error


def newest_valid(parent: Path, *, set_aside: bool) -> Path | None:
    """The newest complete and undamaged folder `step-*` in `parent`; None when there is none at all.

    set_aside: rename damaged ones to `*.corrupt`, so that they are neither used nor lost (needs write access).
    Raises WeightsError when there are folders but every one of them is damaged.
    """
    found = sorted(parent.glob("step-" + "[0-9]" * 8), reverse=True)
    for folder in found:
        try:
            check_folder(folder)
            return folder
        except WeightsError as error:
            log.warning("checkpoint passed over: %s", error)
            if set_aside:
                folder.rename(_free_name(folder))
    damaged = found or sorted(parent.glob("step-*.corrupt"))
    if damaged:
        raise WeightsError(
            f"every checkpoint in {parent} is damaged ({len(damaged)}); remove the folder to start again"
        )
    return None


def remove_leftovers(parent: Path) -> None:
    """Deletes the temporary files and folders of processes that were killed while writing."""
    for path in parent.glob(f"{TEMPORARY}*"):
        if path.is_dir():
            shutil.rmtree(path, ignore_errors=True)
        else:
            path.unlink(missing_ok=True)


def remove_folder(folder: Path) -> None:
    """Deletes a checkpoint so that a kill half-way leaves no folder that looks whole."""
    temporary = folder.with_name(f"{TEMPORARY}{uuid.uuid4().hex}")
    folder.rename(temporary)
    shutil.rmtree(temporary)


def _free_name(damaged: Path) -> Path:
    """A step can be damaged, repeated and damaged again."""
    path, number = damaged.with_name(f"{damaged.name}.corrupt"), 1
    while path.exists():
        number += 1
        path = damaged.with_name(f"{damaged.name}-{number}.corrupt")
    return path


def file_sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


@contextlib.contextmanager
def _locked(folder: Path) -> Iterator[None]:
    try:
        file = (folder / "run.lock").open("a+")
    except OSError as error:
        raise _unwritable(folder, error) from error
    with file:
        try:
            fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB)  # not flock: forked data workers would keep it
        except (BlockingIOError, PermissionError) as error:
            file.seek(0)
            raise ConfigError(f"{folder} is in use by {file.read().strip() or 'another process'}") from error
        file.truncate(0)
        file.write(f"process {os.getpid()} on {socket.gethostname()} since {time.strftime('%F %T')}\n")
        file.flush()
        yield


def _unwritable(folder: Path, error: OSError) -> ConfigError:
    return ConfigError(f"{folder} cannot be written to ({error.strerror}); give another --out")


def _fsync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
