"""The images of a folder, or of a list in a text file; a scan of a folder is remembered."""

import hashlib
import json
import logging
import os
import time
from pathlib import Path
from typing import Any

import numpy as np

from unic.core.cache_dir import cache_dir
from unic.core.errors import DataError
from unic.core.files import write_atomically
from unic.data.labeled_images import ImageList

log = logging.getLogger(__name__)

SUFFIXES = (
    *(".jpg", ".jpeg", ".jpe", ".png", ".webp", ".bmp", ".gif"),
    *(".ppm", ".pgm", ".pbm", ".pnm", ".tif", ".tiff"),
)

# A file system's clock may tick this slowly (FAT: 2 s): a folder changed just now may change again unseen.
_TICK_NS = 2_000_000_000


def read_paths(source: Path) -> list[str]:
    """The images of a folder (with its subfolders), or those named in a text file, one path a line.

    Relative paths start at the text file's folder; blank lines and lines that start with # are skipped.
    Files that a list names are not looked at here: a missing one is a bad image when its turn comes.
    """
    source = source.expanduser().absolute()
    if source.is_dir():
        paths = scan_folder(source)
        if not paths:
            raise DataError(f"{source}: no image in this folder or below (wanted {', '.join(SUFFIXES)})")
        return paths
    try:
        content = source.read_bytes()
    except FileNotFoundError as error:
        raise DataError(f"{source}: no such folder of images or text list of image paths") from error
    except OSError as error:
        raise DataError(f"{source}: cannot be read ({error.strerror})") from error
    if b"\0" in content:
        raise DataError(
            f"{source}: not a text file; wanted a folder of images or a list of paths, one a line"
        )
    lines = [os.fsdecode(line.rstrip(b"\r")) for line in content.split(b"\n")]
    paths = [str(source.parent / line) for line in lines if line.strip() and not line.startswith("#")]
    if not paths:
        raise DataError(f"{source}: an empty list; wanted paths of images, one a line")
    return paths


def read_image_folder(root: Path, split: str) -> ImageList:
    """Labelled images laid out as root/split/class/**/image; classes are numbered in order of their names."""
    root = root.expanduser().absolute()
    folder, wanted = root / split, f"wanted {split}/<class>/<image>"
    if not root.is_dir():
        raise DataError(f"{root}: no such folder ({wanted} in it)")
    if not folder.is_dir():
        raise DataError(f"{root}: no folder {split!r} here ({wanted}; found {_some(_entries(root))})")
    classes = tuple(name for name in _entries(folder) if (folder / name).is_dir())
    if not classes:
        raise DataError(f"{folder}: no folder of a class here ({wanted}; found {_some(_entries(folder))})")
    paths = scan_folder(folder)
    if not paths:
        raise DataError(f"{folder}: {len(classes)} folders of classes and no image in them ({wanted})")
    number = {name: i for i, name in enumerate(classes)}
    parts = [path[len(str(folder)) + 1 :].split("/") for path in paths]
    stray = ["/".join(part) for part in parts if len(part) == 1]
    if stray:
        raise DataError(
            f"{folder}: {len(stray)} images outside the folders of classes ({wanted}): {_some(stray)}"
        )
    labels = np.array([number[part[0]] for part in parts], dtype=np.int64)
    return ImageList(tuple(paths), labels, classes, root.name, str(root))


def scan_folder(root: Path) -> list[str]:
    """Every image below a folder, sorted; hidden entries are left out and links to folders followed.

    Remembers what it saw: as long as no folder has changed, a later call costs one stat a folder.
    """
    root = root.expanduser().absolute()
    if not root.is_dir():
        raise DataError(f"{root}: no such folder")
    started = time.time_ns()
    folders = _remembered(root)
    if folders is None:
        folders = _walk(root)
        if all(changed < started - _TICK_NS for changed, _ in folders.values()):
            _remember(root, folders)
    return sorted(f"{folder}/{name}" for folder, (_, names) in folders.items() for name in names)


# What a scan saw: {folder: (its time of change in ns, the names of its images)}.
_Folders = dict[str, tuple[int, list[str]]]


def _walk(root: Path) -> _Folders:
    seen: _Folders = {}
    todo: list[tuple[str, tuple[tuple[int, int], ...]]] = [(str(root), ())]
    while todo:
        folder, parents = todo.pop()
        try:
            facts = Path(folder).stat()  # before the listing, so that a change meanwhile shows next time
            me = (facts.st_dev, facts.st_ino)
            if me in parents:  # a link to a folder that it lies in
                continue
            names = []
            with os.scandir(folder) as entries:
                for entry in entries:
                    if entry.name.startswith("."):
                        continue
                    if entry.is_dir():
                        todo.append((entry.path, (*parents, me)))
                    # A link whose target is gone counts as an image, a bad one: it should be heard of.
                    elif entry.name.lower().endswith(SUFFIXES) and (entry.is_file() or entry.is_symlink()):
                        names.append(entry.name)
        except OSError as error:
            raise DataError(f"{folder}: cannot be read ({error.strerror})") from error
        seen[folder] = (facts.st_mtime_ns, names)
    return seen


def _scan_file(root: Path) -> Path:
    return cache_dir() / "scans" / f"{hashlib.sha256(os.fsencode(root)).hexdigest()}.json"


def _remembered(root: Path) -> _Folders | None:
    """What the last scan saw, if no folder has changed since."""
    try:
        saved: Any = json.loads(_scan_file(root).read_text())
        if saved["root"] != str(root) or saved["suffixes"] != list(SUFFIXES):
            return None
        folders = {
            str(folder): (int(changed), list(names)) for folder, (changed, names) in saved["folders"].items()
        }
        if all(Path(folder).stat().st_mtime_ns == changed for folder, (changed, _) in folders.items()):
            return folders
    except (OSError, ValueError, TypeError, KeyError, AttributeError, RuntimeError) as error:
        log.debug("no earlier scan of %s: %s", root, error)
    return None


def _remember(root: Path, folders: _Folders) -> None:
    content = json.dumps({"root": str(root), "suffixes": SUFFIXES, "folders": folders}).encode()
    try:
        file = _scan_file(root)
        file.parent.mkdir(parents=True, exist_ok=True)
        write_atomically(file, content)
    except (
        OSError,
        RuntimeError,
    ) as error:  # a cache is a convenience: a full disk or no home is no reason to stop
        log.debug("scan of %s not kept: %s", root, error)


def _entries(folder: Path) -> list[str]:
    return sorted(entry.name for entry in folder.iterdir() if not entry.name.startswith("."))


def _some(names: list[str]) -> str:
    return (
        ", ".join(names[:5]) + (f" and {len(names) - 5} more" if len(names) > 5 else "")
        if names
        else "nothing"
    )
