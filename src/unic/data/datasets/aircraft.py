"""FGVC-Aircraft: 100 variants of aircraft."""

from pathlib import Path

from unic.data.datasets import DATASETS, DatasetSpec
from unic.data.datasets.readers import find_base, listed, numbers_of, read_lines, read_rows
from unic.data.labeled_images import ImageList


def read(root: Path, split: str) -> ImageList:
    """A variant's label is its line in variants.txt."""
    lists = "data/images_variant_trainval.txt", "data/images_variant_test.txt"
    base = find_base(root, ("", "fgvc-aircraft-2013b"), ("data/images", "data/variants.txt", *lists))
    classes = read_lines(base / "data/variants.txt")
    source = base / f"data/images_variant_{split}.txt"
    rows = read_rows(source, columns=2)
    paths = (f"data/images/{image}.jpg" for image, _ in rows)
    labels = numbers_of((variant for _, variant in rows), classes, source)
    return listed(base, paths, labels, classes, name="aircraft", source=source)


DATASETS.add(
    "aircraft",
    DatasetSpec(
        name="aircraft",
        read=read,
        splits=("trainval", "test"),
        counts={"trainval": 6_667, "test": 3_333},
        layout="data/images/<number>.jpg, data/variants.txt, data/images_variant_{trainval,test}.txt, "
        "here or in fgvc-aircraft-2013b/",
        num_classes=100,
        source="https://www.robots.ox.ac.uk/~vgg/data/fgvc-aircraft/archives/fgvc-aircraft-2013b.tar.gz",
        licence="non-commercial research",
    ),
)
