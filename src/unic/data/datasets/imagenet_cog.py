"""ImageNet-CoG: five sets of 1,000 ImageNet-21K classes each, farther and farther from those of ImageNet-1K.

Source: Concept Generalization in Visual Representation Learning (ICCV 2021).
"""

import pickle
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from unic.core.errors import DataError
from unic.data.datasets import DATASETS, DatasetSpec
from unic.data.datasets.readers import explained, find_base, listed
from unic.data.labeled_images import ImageList

LEVELS_FILE, SPLIT_FILE = "cog_levels_mapping_file.pkl", "cog_concepts_split_file.pkl"
_TRAINVAL = (1_118_804, 1_115_788, 1_095_203, 1_107_128, 1_091_654)


def read(root: Path, split: str, *, level: int) -> ImageList:
    """level: from 1, nearest to ImageNet-1K, to 5. Classes are numbered in order of their WordNet ids."""
    base = find_base(root, ("",), (LEVELS_FILE, SPLIT_FILE))
    levels = _read_pickle(base / LEVELS_FILE)
    if not isinstance(levels, list) or len(levels) != 5:
        raise DataError(f"{base / LEVELS_FILE}: wanted a list of 5 lists of WordNet ids")
    classes = sorted(map(str, levels[level - 1]))
    key, parts = {"trainval": "train", "test": "test"}[split], _read_pickle(base / SPLIT_FILE)
    try:
        files = [sorted(str(file).strip().lstrip("/") for file in parts[wnid][key]) for wnid in classes]
    except (KeyError, TypeError, IndexError) as error:
        raise DataError(f"{base / SPLIT_FILE}: no files of {key!r} for {error}") from error
    labels = np.repeat(np.arange(len(classes)), [len(part) for part in files])
    paths = (file for part in files for file in part)
    return listed(base, paths, labels, classes, name=f"cog_l{level}", source=base / SPLIT_FILE)


class _Plain(pickle.Unpickler):
    """Rebuilds lists, dictionaries, strings and numpy arrays, and nothing else: no code comes from a file."""

    def find_class(self, module: str, name: str) -> Any:
        # numpy renamed its private module in version 2; files name either.
        module = module.replace("numpy.core", "numpy._core")
        if (module, name) not in _ALLOWED:
            raise pickle.UnpicklingError(f"it names {module}.{name}, which unic does not unpickle")
        return super().find_class(module, name)


_ALLOWED = {
    *(("numpy", "ndarray"), ("numpy", "dtype"), ("_codecs", "encode")),
    *(("numpy._core.multiarray", "_reconstruct"), ("numpy._core.multiarray", "scalar")),
    ("numpy._core.numeric", "_frombuffer"),
}


def _read_pickle(path: Path) -> Any:
    with explained(path, "pickle of lists and arrays"), path.open("rb") as file:
        return _Plain(file).load()


for level, trainval in enumerate(_TRAINVAL, start=1):
    DATASETS.add(
        f"cog_l{level}",
        DatasetSpec(
            name=f"cog_l{level}",
            read=partial(read, level=level),
            splits=("trainval", "test"),
            counts={"trainval": trainval, "test": 50_000},
            layout=f"<wnid>/<image>.JPEG of ImageNet-21K (winter 2021), {LEVELS_FILE}, {SPLIT_FILE}",
            num_classes=1000,
            folder="cog",
            source="https://github.com/naver/cog",
        ),
    )
