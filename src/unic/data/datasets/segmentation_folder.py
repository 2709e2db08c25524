"""Any images with masks, laid out as ADE20K; dataset.json says what the numbers in the masks stand for."""

from pathlib import Path
from typing import Any

from unic.core.errors import DataError
from unic.data.datasets import DATASETS, DatasetSpec
from unic.data.datasets.readers import inner_folder, read_json, with_masks
from unic.data.dense.label_encoding import IGNORED, Masks, distinct_colours
from unic.data.labeled_images import ImageList

_NOTE = "dataset.json"
_EXAMPLE = '{"classes": ["sky", "road"], "first": 0, "ignored": [255]}'
_NAMES = {"training": ("training", "train"), "validation": ("validation", "val", "test")}


def read(root: Path, split: str) -> ImageList:
    """One part; its folders may be called train, val or test as well."""
    classes = masks(root).classes
    base = root.expanduser().absolute()
    folders = [inner_folder(base / kind, *_NAMES[split]) for kind in ("images", "annotations")]
    for kind, folder in zip(("images", "annotations"), folders, strict=True):
        if folder == base / kind:
            raise DataError(f"{folder}: no folder {' or '.join(_NAMES[split])} here")
    return with_masks(folders[0], folders[1], base.name, classes, base)


def masks(root: Path) -> Masks:
    """What dataset.json says. Raises DataError with an example where it says it wrongly or is not there."""
    path = root.expanduser().absolute() / _NOTE
    wanted = f"wanted such as {_EXAMPLE}, and a palette of [red, green, blue] for each class if you like"
    try:
        note = read_json(path, "classes")
        strange = sorted(note.keys() - {"classes", "first", "ignored", "palette"})
        if strange:
            raise DataError(f"{path}: unknown key {strange[0]!r}")
        classes = _list_of(note["classes"], str, "classes", path)
        palette = note.get("palette")
        colours = distinct_colours(len(classes)) if palette is None else _colours(palette, path)
        first = _list_of([note.get("first", 0)], int, "first", path)[0]
        ignored = _list_of(note.get("ignored", [IGNORED]), int, "ignored", path)
        for number in (first, *ignored):
            if not 0 <= number <= 0xFFFF:
                raise DataError(f"{path}: the number {number}; wanted 0 to 65535")
        return Masks(classes=classes, palette=colours, first=first, ignored=ignored)
    except DataError as error:
        where = "" if str(error).startswith(str(path)) else f"{path}: "
        raise DataError(f"{where}{error}; {wanted}") from error


def _list_of(values: Any, kind: type, name: str, path: Path) -> tuple:
    if not isinstance(values, list) or any(type(value) is not kind for value in values):
        words = {str: "names", int: "whole numbers"}[kind]
        raise DataError(f"{path}: {name} is {values!r}; wanted {words}")
    return tuple(values)


def _colours(palette: Any, path: Path) -> tuple[tuple[int, int, int], ...]:
    colours = []
    for colour in palette if isinstance(palette, list) else [palette]:
        rgb = _list_of(colour, int, "a colour of the palette", path)
        if len(rgb) != 3 or not all(0 <= part <= 255 for part in rgb):
            raise DataError(f"{path}: the colour {colour}; wanted red, green and blue from 0 to 255")
        colours.append(rgb)
    return tuple(colours)


DATASETS.add(
    "segmentation_folder",
    DatasetSpec(
        name="segmentation_folder",
        read=read,
        splits=("training", "validation"),
        layout=f"images/{{training,validation}}/* and annotations/{{training,validation}}/*.png (or train, val, test), "
        f"and {_NOTE}: {_EXAMPLE}",
        num_classes=None,
        masks=masks,
        source="your own images",
    ),
)
