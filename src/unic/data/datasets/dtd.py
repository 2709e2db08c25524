"""Describable Textures Dataset: 47 kinds of texture; the first of its ten partitions."""

from pathlib import Path

from unic.data.datasets import DATASETS, DatasetSpec
from unic.data.datasets.readers import find_base, listed, numbers_of, read_lines
from unic.data.labeled_images import ImageList

_LISTS = {"trainval": ("train1.txt", "val1.txt"), "test": ("test1.txt",)}


def read(root: Path, split: str) -> ImageList:
    """Classes are numbered in order of their names; trainval is train, then val."""
    lists = [file for files in _LISTS.values() for file in files]
    base = find_base(root, ("", "dtd", "dtd/dtd"), ("images", *(f"labels/{file}" for file in lists)))
    lines = {file: read_lines(base / "labels" / file) for file in lists}
    classes = sorted({line.partition("/")[0] for part in lines.values() for line in part})
    paths = [line for file in _LISTS[split] for line in lines[file]]
    source = base / "labels" / _LISTS[split][0]
    labels = numbers_of((path.partition("/")[0] for path in paths), classes, source)
    return listed(base, (f"images/{path}" for path in paths), labels, classes, name="dtd", source=source)


DATASETS.add(
    "dtd",
    DatasetSpec(
        name="dtd",
        read=read,
        splits=("trainval", "test"),
        counts={"trainval": 3_760, "test": 1_880},
        layout="images/<class>/<image>.jpg and labels/{train1,val1,test1}.txt, here or in dtd/ or dtd/dtd/",
        num_classes=47,
        source="https://www.robots.ox.ac.uk/~vgg/data/dtd/download/dtd-r1.0.1.tar.gz",
        licence="research",
    ),
)
