"""Stanford Cars: 196 models of cars."""

from pathlib import Path

import numpy as np

from unic.core.errors import DataError
from unic.data.datasets import DATASETS, DatasetSpec
from unic.data.datasets.readers import find_base, listed, read_mat
from unic.data.labeled_images import ImageList

# Its two releases: all images in one folder with one file about them, and a folder for each part.
_TOGETHER = ("car_ims", "cars_annos.mat")
_PARTS = {
    "trainval": ("cars_train", "devkit/cars_train_annos.mat"),
    "test": ("cars_test", "cars_test_annos_withlabels.mat"),
}


def read(root: Path, split: str) -> ImageList:
    """Labels of the files count from 1. Without a file of the classes' names, they are "1" to "196"."""
    together = root.expanduser().absolute()
    is_together = any((together / name).exists() for name in _TOGETHER)
    folder, annotations = ("", _TOGETHER[1]) if is_together else _PARTS[split]
    places = ("",) if is_together else ("", "stanford_cars")
    base = find_base(root, places, _TOGETHER if is_together else (folder, annotations))
    source = base / annotations
    content = read_mat(source, "annotations")
    rows = np.atleast_1d(content["annotations"])
    try:
        if is_together:
            # By place, (file, four corners of a box, class, is test): their names differ between copies.
            rows = [row for row in rows if bool(row[6]) == (split == "test")]
            paths, labels = [str(row[0]) for row in rows], [int(row[5]) - 1 for row in rows]
        else:
            paths = [f"{folder}/{row['fname']}" for row in rows]
            labels = [int(row["class"]) - 1 for row in rows]
    except (IndexError, ValueError, TypeError) as error:
        raise DataError(f"{source}: wanted the file and the class of each image ({error})") from error
    meta = base / "devkit/cars_meta.mat"
    if "class_names" not in content and meta.exists():
        content = read_mat(meta, "class_names")
    classes = content.get("class_names", [str(i) for i in range(1, 197)])
    return listed(base, paths, labels, map(str, classes), name="cars196", source=source)


DATASETS.add(
    "cars196",
    DatasetSpec(
        name="cars196",
        read=read,
        splits=("trainval", "test"),
        counts={"trainval": 8_144, "test": 8_041},
        layout="car_ims/<number>.jpg and cars_annos.mat; or cars_train/, cars_test/, devkit/cars_train_annos.mat "
        "and cars_test_annos_withlabels.mat, here or in stanford_cars/; devkit/cars_meta.mat if there",
        num_classes=196,
        source="https://ai.stanford.edu/~jkrause/cars/car_dataset.html (no longer served)",
    ),
)
