"""NYU Depth v2 as it is used for learning depth: rooms, 480 x 640 pixels, depth in millimetres."""

from pathlib import Path

from unic.core.errors import DataError
from unic.data.datasets import DATASETS, DatasetSpec
from unic.data.datasets.readers import find_base, read_rows
from unic.data.dense.label_encoding import Depths
from unic.data.labeled_images import ImageList

_LISTS = {"train": "nyu_train.txt", "test": "nyu_test.txt"}


def read(root: Path, split: str) -> ImageList:
    """The pairs that the list names, sorted by file name."""
    base = find_base(root, ("", "nyu", "nyu_depth_v2"), tuple(_LISTS.values()))
    source = base / _LISTS[split]
    pairs = []
    for image, depth, _ in read_rows(source, 3):
        if depth == "None":
            raise DataError(f"{source}: {image} has no depth; leave out such lines")
        # The published lists begin paths with a slash, which is not that of the file system.
        pairs.append((f"{base}/{image.lstrip('/')}", f"{base}/{depth.lstrip('/')}"))
    if not pairs:
        raise DataError(f"{source}: lists no image")
    images, maps = zip(*sorted(pairs), strict=True)
    return ImageList(images, name="nyud", root=str(base), maps=maps)


def depths(root: Path) -> Depths:
    """What counts is what Eigen et al. cut out of the test images; the white border of the photographs is cut off."""
    return Depths(
        scale=1000.0,
        nearest=1e-3,
        farthest=10.0,
        scored=(45, 471, 41, 601),
        border=(45, 472, 43, 608),
        size=(640, 480),
    )


DATASETS.add(
    "nyud",
    DatasetSpec(
        name="nyud",
        read=read,
        counts={"train": 24_231, "test": 654},
        layout="nyu_train.txt and nyu_test.txt (lines: image depth focal-length), <scene>/rgb_*.jpg, "
        "<scene>/sync_depth_*.png, here or in nyu/",
        num_classes=None,
        depths=depths,
        source="https://cs.nyu.edu/~fergus/datasets/nyu_depth_v2.html (synchronised pairs: the lists of BTS or mdet)",
    ),
)
