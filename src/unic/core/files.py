"""How anything is written: whole or not at all; and how lines of JSON are read."""

import hashlib
import json
import logging
import os
import shutil
import uuid
from collections.abc import Callable
from pathlib import Path
from typing import Any

from unic.core.errors import WeightsError

log = logging.getLogger(__name__)


MANIFEST = "manifest.json"


# How the names of our own unfinished files and folders begin; no other file is ever removed.
TEMPORARY = ".tmp-unic-"


def read_lines(path: Path) -> list[dict[str, Any]]:
    """The records of a file of JSON lines that a run writes. A kill can cut the last line short: it is no record yet.

    A damaged line elsewhere (a power cut) is named in the log and left out.
    """
    records, damaged = parse_lines(path, last_needs_end=True)
    for number in damaged:
        log.warning("%s: line %d is damaged and left out", path, number)
    return records


def parse_lines(path: Path, *, last_needs_end: bool) -> tuple[list[dict[str, Any]], list[int]]:
    """The records of a file of JSON lines, and the numbers of the lines that are no JSON object, from 1.

    last_needs_end: a last line without its end is left out, whatever it holds. Otherwise it is read like any other:
      some tools write no end there.
    """
    *lines, last = path.read_bytes().split(b"\n")
    if not last_needs_end:
        lines.append(last)
    records, damaged = [], []
    for number, line in enumerate(lines, start=1):
        if not line.strip():
            continue
        try:
            record = json.loads(line, parse_int=_parse_int)
        except (ValueError, RecursionError):  # no JSON, no UTF-8, or brackets too deep
            record = None
        if isinstance(record, dict):
            records.append(record)
        else:
            damaged.append(number)
    return records, damaged


def _parse_int(digits: str) -> int | float:
    """An integer; infinity for one that is too large for a float, so that no later conversion fails."""
    return int(digits) if len(digits) <= 300 else float(digits)


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


def _fsync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
