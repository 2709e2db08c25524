"""Looking a data set over before time is spent on it: layout, counts, labels, parts, and a few images."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from unic.core import keyed_random
from unic.core.errors import ConfigError, DataError
from unic.data.datasets import DATASETS, DatasetSpec, Roots, read_split, read_targets
from unic.data.decode import read_image
from unic.data.dense.read_annotations import IGNORED, Masks, read_depth, read_mask
from unic.data.labeled_images import ImageList


@dataclass(frozen=True)
class Part:
    """What was found of one part of a data set.

    present: how many of the classes have an image; fewest, most: images of one of these. Where pixels have the
      classes, present counts the classes in the sample, and fewest and most are 0.
    decoded: images opened, a sample drawn by its key; with the truth of their pixels where they have it.
    """

    split: str
    root: str
    images: int
    classes: int
    present: int
    fewest: int
    most: int
    decoded: int
    identity: str


def check_dataset(
    name: str, roots: Roots, *, samples: int = 50, allow_count_mismatch: bool = False
) -> list[Part]:
    """Reads all parts and a sample of images of each; DataError, with the expected layout, for what is wrong."""
    if samples < 0:
        raise ConfigError(f"{samples} samples: expected 0 or more")
    spec = DATASETS[name]
    try:
        root = roots.find(name)
        lists = {
            split: read_split(spec, root, split, allow_count_mismatch=allow_count_mismatch)
            for split in spec.splits
        }
        seen: dict[str, str] = {}
        for split, images in lists.items():
            for path in images.paths:
                if path in seen:
                    where = f"in {seen[path]} and in {split}" if seen[path] != split else f"twice in {split}"
                    raise DataError(f"{name}: {path} is {where}; an image belongs to one part")
                seen[path] = split
        return [_look(spec, root, lists[split], split, samples, allow_count_mismatch) for split in lists]
    except DataError as error:
        raise DataError(f"{error}\nexpected layout of {name}: {spec.layout}") from error


def _look(spec: DatasetSpec, root: Path, images: ImageList, split: str, samples: int, subset: bool) -> Part:
    if spec.task != "classification":
        return _look_dense(spec, root, images, split, samples)
    where = f"{spec.name}, {split}"
    if images.labels is None or images.classes is None or not len(images):
        raise DataError(f"{where}: {len(images)} images in {root}; wanted some, each with a class")
    _all_there(where, images)
    if images.labels.min() < 0 or images.labels.max() >= len(images.classes):
        raise DataError(
            f"{where}: labels from {images.labels.min()} to {images.labels.max()}; "
            f"wanted 0 to {len(images.classes) - 1}"
        )
    counts = np.bincount(images.labels, minlength=len(images.classes))
    empty = [images.classes[i] for i in np.flatnonzero(counts == 0)]
    if empty and split == spec.splits[0] and not spec.train_set and not subset:
        raise DataError(f"{where}: {len(empty)} classes have no image, the first is {empty[0]!r}")
    if not all(read_targets(spec, root, images).answers):
        raise DataError(f"{where}: images without a right answer")
    chosen = _sample(spec, split, len(images), samples)
    for i in chosen:
        read_image(images.paths[i])  # raises BadImage, which names the file
    there = counts[counts > 0]
    return Part(
        split=split,
        root=images.root,
        images=len(images),
        classes=len(images.classes),
        present=len(there),
        fewest=int(there.min()),
        most=int(there.max()),
        decoded=len(chosen),
        identity=images.identity(),
    )


def _look_dense(spec: DatasetSpec, root: Path, images: ImageList, split: str, samples: int) -> Part:
    _all_there(f"{spec.name}, {split}", images)
    truth, seen = spec.truth(root), set()
    chosen = _sample(spec, split, len(images), samples)
    assert images.maps is not None and truth is not None
    for i in chosen:
        size = read_image(images.paths[i]).size
        if isinstance(truth, Masks):
            seen |= set(read_mask(images.maps[i], truth, size).unique().tolist()) - {IGNORED}
        else:
            read_depth(images.maps[i], truth, size)
    return Part(
        split=split,
        root=images.root,
        images=len(images),
        classes=len(truth.classes) if isinstance(truth, Masks) else 0,
        present=len(seen),
        fewest=0,
        most=0,
        decoded=len(chosen),
        identity=images.identity(),
    )


def _all_there(where: str, images: ImageList) -> None:
    missing = [path for path in images.paths if not Path(path).is_file()]
    if missing:
        raise DataError(f"{where}: {len(missing)} of {len(images)} images are not there, first {missing[0]}")


def _sample(spec: DatasetSpec, split: str, num_images: int, samples: int) -> list[int]:
    draws = keyed_random.generator(0, f"check {spec.name} {split}")
    return sorted(draws.choice(num_images, size=min(samples, num_images), replace=False).tolist())
