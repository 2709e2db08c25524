"""Oxford-IIIT Pets: 37 breeds of cats and dogs."""

from pathlib import Path

from unic.data.datasets import DATASETS, DatasetSpec
from unic.data.datasets.readers import find_base, listed, numbers_of, read_rows
from unic.data.labeled_images import ImageList

_NUM_BREEDS = 37


def read(root: Path, split: str) -> ImageList:
    """Labels of the files count from 1; a breed's name is that of its images without their number."""
    lists = "annotations/trainval.txt", "annotations/test.txt"
    base = find_base(root, ("", "oxford-iiit-pet"), ("images", *lists))
    rows = {file: read_rows(base / file, columns=4) for file in lists}
    names = {number: image.rpartition("_")[0] for part in rows.values() for image, number, *_ in part}
    numbers = [str(i) for i in range(1, _NUM_BREEDS + 1)]
    classes = (names.get(number, number) for number in numbers)
    source = f"annotations/{split}.txt"
    labels = numbers_of((number for _, number, *_ in rows[source]), numbers, base / source)
    paths = (f"images/{image}.jpg" for image, *_ in rows[source])
    return listed(base, paths, labels, classes, name="pets", source=base / source)


DATASETS.add(
    "pets",
    DatasetSpec(
        name="pets",
        read=read,
        splits=("trainval", "test"),
        counts={"trainval": 3_680, "test": 3_669},
        layout="images/<breed>_<number>.jpg and annotations/{trainval,test}.txt, here or in oxford-iiit-pet/",
        num_classes=_NUM_BREEDS,
        source="https://www.robots.ox.ac.uk/~vgg/data/pets/",
        licence="CC BY-SA 4.0",
    ),
)
