"""SUN397: 397 kinds of scenes; the first of its ten partitions, 50 images of each class for either part."""

from pathlib import Path

from unic.data.datasets import DATASETS, DatasetSpec
from unic.data.datasets.readers import find_base, listed, numbers_of, read_lines
from unic.data.labeled_images import ImageList

_LISTS = {"trainval": "Training_01.txt", "test": "Testing_01.txt"}


def read(root: Path, split: str) -> ImageList:
    """Lines are /a/abbey/sun_xxx.jpg; a class is what is before the file, numbered in order of the names."""
    base = find_base(root, ("",), ("SUN397", "ClassName.txt", *_LISTS.values()))
    classes = sorted(read_lines(base / "ClassName.txt"))
    source = base / _LISTS[split]
    lines = read_lines(source)
    labels = numbers_of((line.rpartition("/")[0] for line in lines), classes, source)
    return listed(base, (f"SUN397{line}" for line in lines), labels, classes, name="sun397", source=source)


DATASETS.add(
    "sun397",
    DatasetSpec(
        name="sun397",
        read=read,
        splits=("trainval", "test"),
        counts={"trainval": 19_850, "test": 19_850},
        layout="SUN397/<letter>/<class>/<image>.jpg; of Partitions.zip: ClassName.txt, Training_01.txt, Testing_01.txt",
        num_classes=397,
        source="https://vision.princeton.edu/projects/2010/SUN/ (SUN397.tar.gz and Partitions.zip)",
    ),
)
