"""ImageNet-A: photographs of 200 of ImageNet-1K's classes that a ResNet-50 got wrong."""

from pathlib import Path

from unic.data.datasets import DATASETS, DatasetSpec, Targets, one_label_each
from unic.data.datasets.readers import inner_folder, read_class_folders
from unic.data.datasets.wordnet_ids import class_subset, wnids
from unic.data.image_list import ImageList


def read(root: Path, split: str) -> ImageList:
    """Labels are those of ImageNet-1K."""
    number = {wnids()[label]: label for label in class_subset("imagenet_a")}
    return read_class_folders(inner_folder(root, "imagenet-a"), "imagenet_a", number, wnids())


def targets(root: Path, images: ImageList) -> Targets:
    """Scores of the other 800 classes play no part."""
    return one_label_each(images, class_subset("imagenet_a"))


DATASETS.add(
    "imagenet_a",
    DatasetSpec(
        name="imagenet_a",
        read=read,
        splits=("test",),
        counts={"test": 7_500},
        layout="<wnid>/<image>, here or in imagenet-a/",
        num_classes=1000,
        train_set="in1k",
        targets=targets,
        source="https://github.com/hendrycks/natural-adv-examples",
    ),
)
