"""Oxford 102 Flowers: 102 species of flowers."""

from pathlib import Path

import numpy as np

from unic.core.errors import DataError
from unic.data.datasets import DATASETS, DatasetSpec
from unic.data.datasets.readers import find_base, listed, read_mat
from unic.data.labeled_images import ImageList

_IDS = {"trainval": ("trnid", "valid"), "test": ("tstid",)}


def read(root: Path, split: str) -> ImageList:
    """Images and labels of the files count from 1; trainval is train, then val."""
    from torchvision.datasets import Flowers102  # its list of the names, which the files lack

    base = find_base(root, ("", "flowers-102"), ("jpg", "imagelabels.mat", "setid.mat"))
    labels = read_mat(base / "imagelabels.mat", "labels")["labels"]
    parts = read_mat(base / "setid.mat", *_IDS["trainval"], *_IDS["test"])
    ids = np.concatenate([np.atleast_1d(parts[key]) for key in _IDS[split]]).astype(np.int64)
    if ids.min() < 1 or ids.max() > len(labels):
        raise DataError(
            f"{base / 'setid.mat'}: images {ids.min()} to {ids.max()}, but {base / 'imagelabels.mat'} has "
            f"labels of 1 to {len(labels)}"
        )
    paths = (f"jpg/image_{i:05d}.jpg" for i in ids.tolist())
    source = base / "imagelabels.mat"
    return listed(
        base, paths, labels[ids - 1].astype(np.int64) - 1, Flowers102.classes, name="flowers", source=source
    )


DATASETS.add(
    "flowers",
    DatasetSpec(
        name="flowers",
        read=read,
        splits=("trainval", "test"),
        counts={"trainval": 2_040, "test": 6_149},
        layout="jpg/image_<number>.jpg, imagelabels.mat and setid.mat, here or in flowers-102/",
        num_classes=102,
        source="https://www.robots.ox.ac.uk/~vgg/data/flowers/102/",
    ),
)
