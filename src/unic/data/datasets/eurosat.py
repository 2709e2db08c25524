"""EuroSAT: 10 kinds of land in Sentinel-2 images of 64 x 64 pixels, RGB version.

It comes without parts. The published protocol shuffles each class anew at every run; ours is drawn once and for all,
by the name of each file: the same on every machine, in every order of the folder, for every subset that is used.
"""

import zlib
from collections.abc import Iterable
from pathlib import Path

from unic.data.datasets import DATASETS, DatasetSpec, take
from unic.data.datasets.readers import inner_folder, read_class_folders
from unic.data.labeled_images import ImageList

CLASSES = (
    *("AnnualCrop", "Forest", "HerbaceousVegetation", "Highway", "Industrial"),
    *("Pasture", "PermanentCrop", "Residential", "River", "SeaLake"),
)
_SEED, _TEST, _VAL = 0, 810, 540


def parts(names: Iterable[str]) -> dict[str, list[str]]:
    """Divides the files of one class, named class/file: 810 test, 540 val, the rest train; each part sorted.

    Of fewer than 1,620 files, which are a part of a class, half are test and a quarter is val.
    """
    import torch

    from unic.core import keyed_random

    names = sorted(names)
    index = torch.tensor([zlib.crc32(name.encode()) for name in names], dtype=torch.int64)
    draws = keyed_random.uniforms(_SEED, "eurosat", torch.zeros_like(index), index, 1)[:, 0].tolist()
    shuffled = [name for _, name in sorted(zip(draws, names, strict=True))]
    test = min(_TEST, len(names) // 2)
    val = test + min(_VAL, (len(names) - test) // 2)
    found = {"test": shuffled[:test], "val": shuffled[test:val], "train": shuffled[val:]}
    return {part: sorted(files) for part, files in found.items()}


def read(root: Path, split: str) -> ImageList:
    folder = inner_folder(root, "2750", "eurosat/2750")
    images = read_class_folders(folder, "eurosat", {name: i for i, name in enumerate(CLASSES)}, CLASSES)
    position = {path[len(images.root) + 1 :]: i for i, path in enumerate(images.paths)}
    of_class: dict[str, list[str]] = {name: [] for name in CLASSES}
    for name in position:
        of_class[name.partition("/")[0]].append(name)
    divided = [parts(names) for names in of_class.values()]
    wanted = ("train", "val") if split == "trainval" else (split,)
    return take(images, [position[name] for part in wanted for found in divided for name in found[part]])


DATASETS.add(
    "eurosat",
    DatasetSpec(
        name="eurosat",
        read=read,
        splits=("trainval", "test"),
        counts={"trainval": 18_900, "test": 8_100, "train": 13_500, "val": 5_400},
        layout=f"<class>/<image>.jpg, here or in 2750/ or eurosat/2750/; classes {', '.join(CLASSES)}",
        num_classes=10,
        source="https://madm.dfki.de/files/sentinel/EuroSAT.zip",
        licence="MIT",
    ),
)
