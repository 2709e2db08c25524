"""What the readers share: finding a set's files in each layout it comes in, and reading them or saying why not."""

import contextlib
import json
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from unic.core.errors import DataError
from unic.data.folders import scan_folder
from unic.data.labeled_images import ImageList


def find_base(root: Path, places: Sequence[str], needed: Sequence[str]) -> Path:
    """The first of some folders below `root` ("" is root itself) that holds all that is needed.

    Raises DataError, which names the first missing piece of the place that holds most of it.
    """
    root = root.expanduser().absolute()
    if not root.is_dir():
        raise DataError(f"{root}: no such folder; wanted one with {', '.join(needed)}")
    missing = {
        root / place: [name for name in needed if not (root / place / name).exists()] for place in places
    }
    best = min(missing, key=lambda place: len(missing[place]))
    if missing[best]:
        raise DataError(f"{best}: no {missing[best][0]!r} here; wanted {', '.join(map(repr, needed))}")
    return best


def inner_folder(root: Path, *places: str) -> Path:
    """The first of some folders below `root` that is there, or root, which may be that folder itself."""
    root = root.expanduser().absolute()
    return next((root / place for place in places if (root / place).is_dir()), root)


def read_class_folders(
    folder: Path, name: str, number: Mapping[str, int], classes: tuple[str, ...]
) -> ImageList:
    """Images laid out as folder/class/**/image, sorted by path.

    number: from a folder's name to its position in `classes`, so that a missing folder shifts no label.
    """
    paths = scan_folder(folder)
    start = len(str(folder)) + 1
    found = [path[start:].partition("/")[0] for path in paths]
    wanted = f"wanted folders of classes such as {', '.join(list(number)[:3])}"
    if not paths:
        raise DataError(f"{folder}: no image in this folder or below; {wanted}")
    strange = sorted(set(found) - number.keys())
    if strange:
        raise DataError(f"{folder}: {_first(strange)} is no class of {name}; {wanted}")
    labels = np.array([number[entry] for entry in found], dtype=np.int64)
    return ImageList(tuple(paths), labels, classes, name, str(folder))


def with_masks(images: Path, masks: Path, name: str, classes: tuple[str, ...], base: Path) -> ImageList:
    """The images of a folder, sorted by path, each with the PNG of the same name in the folder of masks.

    Whether the masks are there is looked at by `read_split`.
    """
    paths = scan_folder(images)
    if not paths:
        raise DataError(f"{images}: no image in this folder")
    stems = [Path(path).relative_to(images).with_suffix("") for path in paths]
    twice = [stem for stem, count in Counter(stems).items() if count > 1]
    if twice:
        raise DataError(f"{images}: two images are called {twice[0]}; their mask can belong to one")
    maps = tuple(f"{masks}/{stem}.png" for stem in stems)
    return ImageList(tuple(paths), None, classes, name, str(base), maps)


def listed(
    base: Path, paths: Iterable[str], labels: Any, classes: Iterable[str], *, name: str, source: Path
) -> ImageList:
    """Images that a file of the data set lists: paths below `base` and the number of each one's class.

    source: that file, for the sentence about a label that is no class.
    """
    images, classes = tuple(f"{base}/{path}" for path in paths), tuple(classes)
    numbers = np.array(labels, dtype=np.int64)
    if not images:
        raise DataError(f"{source}: lists no image")
    wrong = np.flatnonzero((numbers < 0) | (numbers >= len(classes)))
    if len(wrong):
        raise DataError(
            f"{source}: {images[wrong[0]]} has label {numbers[wrong[0]]}; wanted 0 to {len(classes) - 1}"
        )
    return ImageList(images, numbers, classes, name, str(base))


def numbers_of(names: Iterable[str], classes: Sequence[str], source: Path) -> list[int]:
    """The position of each name in `classes`; `source` is the file that names them."""
    names, number = list(names), {name: i for i, name in enumerate(classes)}
    strange = sorted(set(names) - number.keys())
    if strange:
        raise DataError(f"{source}: {_first(strange)} is none of the {len(classes)} classes")
    return [number[name] for name in names]


def read_rows(path: Path, columns: int = 1) -> list[list[str]]:
    """The lines of a text file, cut at blanks into so many columns, of which the last one may hold blanks."""
    with explained(path, "text file"):
        lines = [line.strip() for line in path.read_text(encoding="utf-8").splitlines()]
    rows = [line.split(maxsplit=columns - 1) if columns > 1 else [line] for line in lines if line]
    for row in rows:
        if len(row) != columns:
            raise DataError(f"{path}: line {' '.join(row)!r}; wanted {columns} words")
    return rows


def read_lines(path: Path) -> list[str]:
    """The lines of a text file that are not empty, without blanks around them."""
    return [line for (line,) in read_rows(path)]


def read_json(path: Path, *keys: str) -> Any:
    """The content of a JSON file: an object that has these keys."""
    with explained(path, "JSON file"):
        content = json.loads(path.read_bytes())
    return _with_keys(path, content, keys)


def read_mat(path: Path, *keys: str) -> Any:
    """The arrays of a MATLAB file by name, without their axes of length 1; all of `keys` are in it."""
    from scipy.io import loadmat

    with explained(path, "MATLAB file"):
        content = loadmat(path, squeeze_me=True)
    return _with_keys(path, content, keys)


@contextlib.contextmanager
def explained(path: Path, kind: str) -> Iterator[None]:
    """For reading `path`: whatever is raised, and a damaged file may raise anything, becomes a DataError."""
    try:
        yield
    except FileNotFoundError as error:
        raise DataError(f"{path}: no such file") from error
    except Exception as error:
        raise DataError(f"{path}: no readable {kind} ({error})") from error


def _with_keys(path: Path, content: Any, keys: Sequence[str]) -> Any:
    if not isinstance(content, dict):
        raise DataError(f"{path}: holds a {type(content).__name__}; wanted names and values")
    for key in keys:
        if key not in content:
            raise DataError(f"{path}: holds no {key!r}; wanted {', '.join(keys)}")
    return content


def _first(names: list[str]) -> str:
    return repr(names[0]) + (f" (and {len(names) - 1} more)" if len(names) > 1 else "")
