"""ImageNet-v2, matched frequency: new photographs of ImageNet-1K's classes, collected as its own were."""

from pathlib import Path

from unic.data.datasets import DATASETS, DatasetSpec
from unic.data.datasets.readers import inner_folder, read_class_folders
from unic.data.datasets.wordnet_ids import wnids
from unic.data.image_list import ImageList

_FOLDER = "imagenetv2-matched-frequency-format-val"


def read(root: Path, split: str) -> ImageList:
    """A folder's name is its label, from 0 to 999; in order of the names, 10 would come before 2."""
    number = {str(label): label for label in range(1000)}
    return read_class_folders(inner_folder(root, _FOLDER), "imagenetv2", number, wnids())


DATASETS.add(
    "imagenetv2",
    DatasetSpec(
        name="imagenetv2",
        read=read,
        splits=("test",),
        counts={"test": 10_000},
        layout=f"<label from 0 to 999>/<image>.jpeg, here or in {_FOLDER}/",
        num_classes=1000,
        train_set="in1k",
        source="https://github.com/modestyachts/ImageNetV2",
    ),
)
