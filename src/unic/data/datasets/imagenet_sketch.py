"""ImageNet-Sketch: black and white drawings of ImageNet-1K's classes."""

from pathlib import Path

from unic.data.datasets import DATASETS, DatasetSpec
from unic.data.datasets.readers import inner_folder, read_class_folders
from unic.data.datasets.wordnet_ids import wnid_numbers, wnids
from unic.data.image_list import ImageList


def read(root: Path, split: str) -> ImageList:
    return read_class_folders(inner_folder(root, "sketch"), "sketch", wnid_numbers(), wnids())


DATASETS.add(
    "sketch",
    DatasetSpec(
        name="sketch",
        read=read,
        splits=("test",),
        counts={"test": 50_889},
        layout="<wnid>/<image>, here or in sketch/",
        num_classes=1000,
        train_set="in1k",
        source="https://github.com/HaohanWang/ImageNet-Sketch",
    ),
)
