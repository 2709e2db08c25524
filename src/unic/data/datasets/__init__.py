"""Labelled data sets: one file each, which says how its folder is laid out and reads it as an ImageList."""

import dataclasses
import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from unic.data.images import ImageList
from unic.errors import DataError
from unic.plugins import Registry

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Targets:
    """What counts as right, in the class numbers of the set that a classifier was trained on.

    A prediction is the class with the highest score among `scored`; it is right when it is one of the image's
    `answers`. This covers sets of fewer classes, images with several right labels, and ObjectNet, where an
    object's score is the highest one of its ImageNet classes.

    scored: positions in the training set's classes, ascending.
    answers: for each image one or more of `scored`.
    """

    scored: tuple[int, ...]
    answers: tuple[tuple[int, ...], ...]


@dataclass(frozen=True, kw_only=True)
class DatasetSpec:
    """What the command line, the tables and the evaluations need to know of a data set.

    read: (root, split) -> images; `root` is the data set's own folder. DataError when its layout is wrong.
    splits: the names of the parts to fit on and to score on; of the latter alone when there is a `train_set`.
    counts: the published number of images of each split; empty when the folder decides.
    layout: what the folder must look like, for people.
    num_classes: None when the folder decides.
    train_set: the data set whose classifier is judged here as it is, for sets that are for testing only.
    targets: (root, images) -> what counts as right, where it is more than one label among all classes.
    folder: the set's place in a folder of data sets, when it is not its name: sets may share one.
    source: where to get it.
    """

    name: str
    read: Callable[[Path, str], ImageList]
    splits: tuple[str, ...] = ("train", "test")
    counts: Mapping[str, int] = field(default_factory=dict)
    layout: str
    num_classes: int | None
    train_set: str = ""
    targets: Callable[[Path, ImageList], Targets] | None = None
    folder: str = ""
    source: str = ""
    licence: str = ""


DATASETS: Registry[DatasetSpec] = Registry("data set", "unic.data.datasets")


def find_root(name: str, data_root: Path) -> Path:
    """The data set's own folder: below `data_root` under its name if it is there, else `data_root` itself."""
    below = data_root.expanduser() / (DATASETS[name].folder or name)
    return below if below.is_dir() else data_root


def read_split(spec: DatasetSpec, root: Path, split: str, *, allow_count_mismatch: bool = False) -> ImageList:
    """One part of a data set, which is all of what was published.

    allow_count_mismatch: take a part of it, too: listed images that are not there are left out. Labels are
      those of the full set, because the readers number classes by what was published.
    """
    if split not in (*spec.splits, *spec.counts):
        raise DataError(f"{spec.name} has no part {split!r}; known: {', '.join(spec.counts or spec.splits)}")
    images = spec.read(root, split)
    if allow_count_mismatch:
        images = _present(images)
    expected, got = spec.counts.get(split), len(images)
    # A test part may lack a class; what is learned must not.
    wanted = spec.num_classes if split == spec.splits[0] else None
    num_classes = len(images.classes or ())
    for what, wanted_number, number in (("images", expected, got), ("classes", wanted, num_classes)):
        if wanted_number is None or number == wanted_number:
            continue
        sentence = f"{spec.name}, {split}: {number} {what} in {root}, expected {wanted_number}"
        if not allow_count_mismatch:
            raise DataError(f"{sentence}; complete it, or use it as it is with --allow-count-mismatch")
        log.warning("%s", sentence)
    return images


def read_targets(spec: DatasetSpec, root: Path, images: ImageList) -> Targets:
    """What counts as right for each image: what the set says of it, or its one label among all classes."""
    if spec.targets is not None:
        return spec.targets(root, images)
    if images.labels is None or images.classes is None:
        raise DataError(f"{spec.name}: images without labels; an evaluation needs the class of each one")
    return one_label_each(images, tuple(range(len(images.classes))))


def one_label_each(images: ImageList, scored: tuple[int, ...]) -> Targets:
    """The label of each image is its only right answer, among the classes `scored`."""
    assert images.labels is not None, "readers label their images"
    return Targets(scored, tuple((label,) for label in images.labels.tolist()))


def take(images: ImageList, kept: list[int]) -> ImageList:
    """The images at these positions."""
    labels = None if images.labels is None else images.labels[np.array(kept, dtype=np.int64)]
    return dataclasses.replace(images, paths=tuple(images.paths[i] for i in kept), labels=labels)


def _present(images: ImageList) -> ImageList:
    kept = [i for i, path in enumerate(images.paths) if Path(path).is_file()]
    if not kept:
        raise DataError(f"{images.root}: none of the {len(images)} images of {images.name} is here")
    return take(images, kept)
