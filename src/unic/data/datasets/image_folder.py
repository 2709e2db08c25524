"""Any labelled images in folders: one folder for each part, in it one for each class."""

from pathlib import Path

from unic.data.datasets import DATASETS, DatasetSpec
from unic.data.folders import read_image_folder
from unic.data.labeled_images import ImageList

_TEST_NAMES = ("test", "val", "validation")


def read(root: Path, split: str) -> ImageList:
    """Reads one part; where there is no `test`, the part to score on may be called `val` or `validation`."""
    if split == "test":
        there = [name for name in _TEST_NAMES if (root.expanduser() / name).is_dir()]
        split = there[0] if there else split
    return read_image_folder(root, split)


DATASETS.add(
    "image_folder",
    DatasetSpec(
        name="image_folder",
        read=read,
        layout="train/<class>/<image> and test/<class>/<image> (or val/ or validation/)",
        num_classes=None,
        source="your own images",
    ),
)
