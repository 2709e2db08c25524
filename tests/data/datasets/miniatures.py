"""Miniatures of published data sets: all files that the real one has, two or three images of a class."""

from collections.abc import Iterable
from pathlib import Path

import numpy as np
from scipy.io import savemat

from unic.data.datasets import DATASETS


def write(root: Path, files: dict[str, str]) -> Path:
    """Text files, by their path below root."""
    for name, text in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return root


def touch(root: Path, names: Iterable[str]) -> Path:
    """Empty files: readers open no image."""
    return write(root, dict.fromkeys(names, ""))


def read(name: str, root: Path, split: str) -> list[tuple[str, int]]:
    """What a data set's reader finds: (path below root, label)."""
    images = DATASETS[name].read(root, split)
    assert images.name == name
    assert images.labels is not None and images.labels.dtype == np.int64
    return [
        (str(Path(path).relative_to(root)), label)
        for path, label in zip(images.paths, images.labels.tolist(), strict=True)
    ]


def aircraft(root: Path) -> Path:
    touch(root, [f"data/images/{i:07d}.jpg" for i in range(1, 6)])
    return write(
        root,
        {
            "data/variants.txt": "707-320\n727-200\nA300 B4\n",
            "data/images_variant_trainval.txt": "0000003 A300 B4\n0000001 707-320\n0000005 727-200\n",
            "data/images_variant_test.txt": "0000002 A300 B4\n0000004 707-320\n",
        },
    )


def dtd(root: Path) -> Path:
    touch(root, [f"images/{c}/{c}_{i}.jpg" for c in ("banded", "woven") for i in range(3)])
    return write(
        root,
        {
            "labels/train1.txt": "woven/woven_1.jpg\nbanded/banded_2.jpg\n",
            "labels/val1.txt": "banded/banded_0.jpg\nwoven/woven_0.jpg\n",
            "labels/test1.txt": "banded/banded_1.jpg\nwoven/woven_2.jpg\n",
        },
    )


def flowers(root: Path) -> Path:
    touch(root, [f"jpg/image_{i:05d}.jpg" for i in range(1, 7)])
    savemat(root / "imagelabels.mat", {"labels": np.array([[5, 5, 5, 102, 102, 102]], dtype=np.uint8)})
    ids = {"trnid": [[4, 1]], "valid": [[2, 5]], "tstid": [[6, 3]]}
    savemat(root / "setid.mat", {key: np.array(value, dtype=np.uint16) for key, value in ids.items()})
    return root


def pets(root: Path) -> Path:
    touch(root, ["images/Abyssinian_1.jpg", "images/great_pyrenees_10.jpg", "images/great_pyrenees_2.jpg"])
    return write(
        root,
        {
            "annotations/trainval.txt": "Abyssinian_1 1 1 1\ngreat_pyrenees_10 16 2 7\n",
            "annotations/test.txt": "great_pyrenees_2 16 2 7\n",
        },
    )


def food101(root: Path) -> Path:
    touch(root, [f"images/{name}.jpg" for name in ("apple_pie/10", "apple_pie/9", "waffles/1", "waffles/2")])
    return write(
        root,
        {
            "meta/train.txt": "waffles/2\napple_pie/10\n",
            "meta/test.txt": "waffles/1\napple_pie/9\n",
            "meta/train.json": '{"waffles": ["waffles/2"], "apple_pie": ["apple_pie/10"]}',
            "meta/test.json": '{"waffles": ["waffles/1"], "apple_pie": ["apple_pie/9"]}',
        },
    )


def sun397(root: Path) -> Path:
    names = ["a/abbey/sun_1.jpg", "a/apartment_building/outdoor/sun_2.jpg"]
    names += ["a/abbey/sun_3.jpg", "a/apartment_building/outdoor/sun_4.jpg"]
    touch(root, [f"SUN397/{name}" for name in names])
    return write(
        root,
        {
            "ClassName.txt": "/a/apartment_building/outdoor\n/a/abbey\n",
            "Training_01.txt": "/a/apartment_building/outdoor/sun_2.jpg\n/a/abbey/sun_1.jpg\n",
            "Testing_01.txt": "/a/abbey/sun_3.jpg\n/a/apartment_building/outdoor/sun_4.jpg\n",
        },
    )


def cars_together(root: Path) -> Path:
    """All images in one folder."""
    touch(root, [f"car_ims/00000{i}.jpg" for i in range(1, 5)])
    fields = [(name, object) for name in ("relative_im_path", "x1", "y1", "x2", "y2", "class", "test")]
    rows = [("car_ims/000001.jpg", 1, 2, 3, 4, 2, 0), ("car_ims/000002.jpg", 1, 2, 3, 4, 1, 1)]
    rows += [("car_ims/000003.jpg", 1, 2, 3, 4, 196, 0), ("car_ims/000004.jpg", 1, 2, 3, 4, 2, 1)]
    savemat(root / "cars_annos.mat", {"annotations": np.array([rows], dtype=fields)})
    return root


def cars_meta(root: Path) -> None:
    (root / "devkit").mkdir(exist_ok=True)
    names = np.array([[f"Car {i}" for i in range(1, 197)]], dtype=object)
    savemat(root / "devkit/cars_meta.mat", {"class_names": names})


def cars_parts(root: Path) -> Path:
    """A folder for each part, as torchvision wants them."""
    touch(
        root, ["cars_train/00001.jpg", "cars_train/00002.jpg", "cars_test/00001.jpg", "cars_test/00002.jpg"]
    )
    cars_meta(root)
    fields = [(name, object) for name in ("bbox_x1", "bbox_y1", "bbox_x2", "bbox_y2", "class", "fname")]
    train = np.array([[(1, 2, 3, 4, 14, "00001.jpg"), (1, 2, 3, 4, 3, "00002.jpg")]], dtype=fields)
    test = np.array([[(1, 2, 3, 4, 181, "00001.jpg"), (1, 2, 3, 4, 3, "00002.jpg")]], dtype=fields)
    savemat(root / "devkit/cars_train_annos.mat", {"annotations": train})
    savemat(root / "cars_test_annos_withlabels.mat", {"annotations": test})
    return root
