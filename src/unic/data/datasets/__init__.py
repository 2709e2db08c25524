"""Labelled data sets: one file each, which says how its folder is laid out and reads it as an ImageList."""

import dataclasses
import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

import numpy as np

from unic.core.errors import ConfigError, DataError
from unic.core.registry import Registry
from unic.data.dense.label_encoding import Depths, Masks
from unic.data.labeled_images import ImageList

log = logging.getLogger(__name__)

Task = Literal["classification", "segmentation", "depth"]


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
    masks, depths: for sets that say what is right for each pixel: (root) -> how their files do that.
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
    masks: Callable[[Path], Masks] | None = None
    depths: Callable[[Path], Depths] | None = None
    folder: str = ""
    source: str = ""
    licence: str = ""

    @property
    def task(self) -> Task:
        if self.masks is not None:
            return "segmentation"
        return "classification" if self.depths is None else "depth"

    def truth(self, root: Path) -> Masks | Depths | None:
        """How the files say what is right for each pixel; None for sets of labelled images."""
        how = self.masks or self.depths
        return how and how(root)


DATASETS: Registry[DatasetSpec] = Registry(
    "data set", "unic.data.datasets", list_command="unic datasets list"
)


@dataclass(frozen=True)
class Roots:
    """Where data sets lie: a folder with one folder for each of them, and places of their own."""

    common: Path | None = None
    own: Mapping[str, Path] = field(default_factory=dict)

    @classmethod
    def parse(cls, texts: Sequence[str]) -> "Roots":
        """From words of the command line: a folder, and NAME=FOLDER for single data sets."""
        common, own = None, {}
        for text in texts:
            name, equals, folder = text.partition("=")
            if equals and name in DATASETS:
                own[name] = Path(folder)
            elif common is not None:
                raise ConfigError(
                    f"two folders of data sets, {common} and {text}; name a set with NAME={text}"
                )
            else:
                common = Path(text)
        return cls(common, own)

    def find(self, name: str) -> Path:
        """The data set's own folder: below `common` under its name if it is there, else `common` itself."""
        spec = DATASETS[name]
        own = self._own(name)
        if own is not None:
            return own
        if self.common is None:
            raise ConfigError(f"where is {name}? --data-root {name}=FOLDER, or a folder that holds {name}/")
        below = self.common.expanduser() / (spec.folder or name)
        return below if below.is_dir() else self.common

    def has(self, name: str) -> bool:
        """Whether a set has a folder of its own here."""
        own = self._own(name)
        if own is not None:
            return own.expanduser().is_dir()
        return self.common is not None and self.find(name) != self.common

    def _own(self, name: str) -> Path | None:
        """The place named for this set, or for the one whose folder it shares."""
        return self.own.get(name, self.own.get(DATASETS[name].folder))


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
    elif missing := [path for path in images.maps or () if not Path(path).is_file()]:
        raise DataError(f"{missing[0]}: no such file ({len(missing)} of {len(images)} images have no truth)")
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
    maps = None if images.maps is None else tuple(images.maps[i] for i in kept)
    return dataclasses.replace(images, paths=tuple(images.paths[i] for i in kept), labels=labels, maps=maps)


def _present(images: ImageList) -> ImageList:
    files = zip(images.paths, images.maps, strict=True) if images.maps else zip(images.paths, strict=True)
    kept = [i for i, of_image in enumerate(files) if all(Path(path).is_file() for path in of_image)]
    if not kept:
        raise DataError(f"{images.root}: none of the {len(images)} images of {images.name} is here")
    return take(images, kept)
