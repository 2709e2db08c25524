"""Food-101: 101 dishes."""

from pathlib import Path

from unic.data.datasets import DATASETS, DatasetSpec
from unic.data.datasets.readers import find_base, listed, numbers_of, read_lines
from unic.data.labeled_images import ImageList

_LISTS = {"trainval": "meta/train.txt", "test": "meta/test.txt"}


def read(root: Path, split: str) -> ImageList:
    """Classes are numbered in order of their names."""
    base = find_base(root, ("", "food-101"), ("images", *_LISTS.values()))
    lines = {part: read_lines(base / file) for part, file in _LISTS.items()}
    classes = sorted({line.partition("/")[0] for part in lines.values() for line in part})
    source = base / _LISTS[split]
    labels = numbers_of((line.partition("/")[0] for line in lines[split]), classes, source)
    paths = (f"images/{line}.jpg" for line in lines[split])
    return listed(base, paths, labels, classes, name="food101", source=source)


DATASETS.add(
    "food101",
    DatasetSpec(
        name="food101",
        read=read,
        splits=("trainval", "test"),
        counts={"trainval": 75_750, "test": 25_250},
        layout="images/<class>/<number>.jpg and meta/{train,test}.txt, here or in food-101/",
        num_classes=101,
        source="http://data.vision.ee.ethz.ch/cvl/food-101.tar.gz",
    ),
)
