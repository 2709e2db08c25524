"""1,797 handwritten digits of 8 x 8 pixels that come with scikit-learn: real data that need no network."""

import os
import shutil
from pathlib import Path

import numpy as np
from PIL import Image

from unic.data.datasets import DATASETS, DatasetSpec
from unic.data.folders import read_image_folder

IMAGE_SIZE = 32
_TEST_PER_CLASS = 50


def write_digits(root: Path) -> None:
    """Writes the digits as PNG files of 32 x 32 pixels: 1,297 below root/train/, 500 below root/test/.

    The test images are the last 50 of each class in scikit-learn's order.
    Does nothing when the folder is there; a kill half-way leaves none.
    """
    from sklearn.datasets import load_digits

    if root.is_dir():
        return
    images, labels = load_digits(return_X_y=True)
    temporary = root.with_name(f".tmp-{os.getpid()}-{root.name}")
    for digit in range(10):
        rows = np.flatnonzero(labels == digit)
        for split, part in (("train", rows[:-_TEST_PER_CLASS]), ("test", rows[-_TEST_PER_CLASS:])):
            folder = temporary / split / str(digit)
            folder.mkdir(parents=True)
            for row in part:
                pixels = np.round(images[row].reshape(8, 8) * (255 / 16)).astype(np.uint8)  # from 0 to 16
                image = Image.fromarray(pixels).resize((IMAGE_SIZE, IMAGE_SIZE), Image.Resampling.BICUBIC)
                image.save(folder / f"{row:04d}.png")
    try:
        temporary.rename(root)
    except OSError:
        shutil.rmtree(temporary)
        if not root.is_dir():  # another process was first
            raise


DATASETS.add(
    "digits",
    DatasetSpec(
        name="digits",
        read=read_image_folder,
        layout="train/<digit>/<image>.png and test/<digit>/<image>.png, as write_digits makes them",
        num_classes=10,
        source="sklearn.datasets.load_digits, from UCI's Optical Recognition of Handwritten Digits",
        licence="CC BY 4.0",
    ),
)
