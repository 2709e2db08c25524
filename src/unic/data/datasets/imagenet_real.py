"""ImageNet-ReaL: ImageNet-1K's validation images with all labels that people found right, none to many each.

Source: Are we done with ImageNet? (2020); images without a right label are left out, as there.
"""

import functools
import json
import re
from pathlib import Path

from unic.core.errors import DataError
from unic.data.datasets import DATASETS, DatasetSpec, Targets, imagenet_1k, take
from unic.data.datasets.wordnet_ids import timm_facts
from unic.data.labeled_images import ImageList

_NAME = re.compile(r"ILSVRC2012_val_(\d{8})")


def read(root: Path, split: str) -> ImageList:
    """The labels are ImageNet-1K's own; `targets` has the others."""
    images = imagenet_1k.read(root, split)
    found = take(images, [i for i, path in enumerate(images.paths) if _answers(path)])
    return ImageList(found.paths, found.labels, found.classes, "imagenet_real", found.root)


def targets(root: Path, images: ImageList) -> Targets:
    return Targets(tuple(range(1000)), tuple(_answers(path) for path in images.paths))


@functools.cache
def _labels() -> list[tuple[int, ...]]:
    """The right labels of validation image 1, 2, ..."""
    return [tuple(labels) for labels in json.loads(timm_facts("imagenet_real_labels.json"))]


def _answers(path: str) -> tuple[int, ...]:
    match = _NAME.match(Path(path).name)
    if match is None or not 1 <= int(match[1]) <= len(_labels()):
        raise DataError(
            f"{path}: wanted ImageNet's own name, ILSVRC2012_val_00000001.JPEG to {len(_labels()):08d}, which "
            f"says the image's right labels"
        )
    return _labels()[int(match[1]) - 1]


DATASETS.add(
    "imagenet_real",
    DatasetSpec(
        name="imagenet_real",
        read=read,
        splits=("test",),
        counts={"test": 46_837},
        layout="val/<wnid>/ILSVRC2012_val_<number>.JPEG, as in in1k",
        num_classes=1000,
        train_set="in1k",
        targets=targets,
        folder="in1k",
        source="https://github.com/google-research/reassessed-imagenet (the labels come with timm)",
    ),
)
