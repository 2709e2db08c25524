"""ImageNet-1K (ILSVRC 2012): 1,000 classes of objects in photographs, in folders named by WordNet id."""

from pathlib import Path

from unic.data.datasets import DATASETS, DatasetSpec
from unic.data.datasets.readers import read_class_folders
from unic.data.datasets.wordnet_ids import wnid_numbers, wnids
from unic.data.labeled_images import ImageList

_FOLDERS = {"trainval": "train", "test": "val"}


def read(root: Path, split: str) -> ImageList:
    folder = root.expanduser().absolute() / _FOLDERS[split]
    return read_class_folders(folder, "in1k", wnid_numbers(), wnids())


DATASETS.add(
    "in1k",
    DatasetSpec(
        name="in1k",
        read=read,
        splits=("trainval", "test"),
        counts={"trainval": 1_281_167, "test": 50_000},
        layout="train/<wnid>/<image> and val/<wnid>/<image>",
        num_classes=1000,
        source="https://image-net.org/challenges/LSVRC/2012",
        licence="non-commercial research and education",
    ),
)
