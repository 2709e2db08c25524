"""ImageNet-R: paintings, toys, cartoons and other renditions of 200 of ImageNet-1K's classes."""

from pathlib import Path

from unic.data.datasets import DATASETS, DatasetSpec, Targets, one_label_each
from unic.data.datasets.readers import inner_folder, read_class_folders
from unic.data.datasets.wordnet_ids import class_subset, wnids
from unic.data.image_list import ImageList


def read(root: Path, split: str) -> ImageList:
    """Labels are those of ImageNet-1K."""
    number = {wnids()[label]: label for label in class_subset("imagenet_r")}
    return read_class_folders(inner_folder(root, "imagenet-r"), "imagenet_r", number, wnids())


def targets(root: Path, images: ImageList) -> Targets:
    """Scores of the other 800 classes play no part."""
    return one_label_each(images, class_subset("imagenet_r"))


DATASETS.add(
    "imagenet_r",
    DatasetSpec(
        name="imagenet_r",
        read=read,
        splits=("test",),
        counts={"test": 30_000},
        layout="<wnid>/<image>, here or in imagenet-r/",
        num_classes=1000,
        train_set="in1k",
        targets=targets,
        source="https://github.com/hendrycks/imagenet-r",
    ),
)
