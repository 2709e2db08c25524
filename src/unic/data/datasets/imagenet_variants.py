"""Other images of ImageNet-1K's classes, for testing its classifiers: ImageNet-v2, -Sketch, -R and -A.

All are folders of classes. Labels are those of ImageNet-1K, also where a set has 200 of its classes.
"""

from collections.abc import Mapping
from functools import partial
from pathlib import Path

from unic.data.datasets import DATASETS, DatasetSpec, Targets, one_label_each
from unic.data.datasets.readers import inner_folder, read_class_folders
from unic.data.datasets.wordnet_ids import class_subset, wnid_numbers, wnids
from unic.data.labeled_images import ImageList

_V2_FOLDER = "imagenetv2-matched-frequency-format-val"


def _read(root: Path, name: str, folder: str, number: Mapping[str, int]) -> ImageList:
    return read_class_folders(inner_folder(root, folder), name, number, wnids())


def read_v2(root: Path, split: str) -> ImageList:
    """A folder's name is its label, from 0 to 999; in order of the names, 10 would come before 2."""
    return _read(root, "imagenetv2", _V2_FOLDER, {str(label): label for label in range(1000)})


def read_sketch(root: Path, split: str) -> ImageList:
    return _read(root, "sketch", "sketch", wnid_numbers())


def read_subset(root: Path, split: str, *, name: str, folder: str) -> ImageList:
    number = {wnids()[label]: label for label in class_subset(name)}
    return _read(root, name, folder, number)


def subset_targets(root: Path, images: ImageList, *, name: str) -> Targets:
    """Scores of the other 800 classes play no part."""
    return one_label_each(images, class_subset(name))


# New photographs, matched frequency: collected as ImageNet's own were.
DATASETS.add(
    "imagenetv2",
    DatasetSpec(
        name="imagenetv2",
        read=read_v2,
        splits=("test",),
        counts={"test": 10_000},
        layout=f"<label from 0 to 999>/<image>.jpeg, here or in {_V2_FOLDER}/",
        num_classes=1000,
        train_set="in1k",
        source="https://github.com/modestyachts/ImageNetV2",
    ),
)
# Black and white drawings.
DATASETS.add(
    "sketch",
    DatasetSpec(
        name="sketch",
        read=read_sketch,
        splits=("test",),
        counts={"test": 50_889},
        layout="<wnid>/<image>, here or in sketch/",
        num_classes=1000,
        train_set="in1k",
        source="https://github.com/HaohanWang/ImageNet-Sketch",
    ),
)
# -R: paintings, toys, cartoons and other renditions of 200 classes.
# -A: photographs of 200 classes that a ResNet-50 got wrong.
for name, folder, num_images, source in (
    ("imagenet_r", "imagenet-r", 30_000, "https://github.com/hendrycks/imagenet-r"),
    ("imagenet_a", "imagenet-a", 7_500, "https://github.com/hendrycks/natural-adv-examples"),
):
    DATASETS.add(
        name,
        DatasetSpec(
            name=name,
            read=partial(read_subset, name=name, folder=folder),
            splits=("test",),
            counts={"test": num_images},
            layout=f"<wnid>/<image>, here or in {folder}/",
            num_classes=1000,
            train_set="in1k",
            targets=partial(subset_targets, name=name),
            source=source,
        ),
    )
