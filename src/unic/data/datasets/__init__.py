"""Labelled data sets: one file each, which says how its folder is laid out and reads it as an ImageList."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from unic.data.images import ImageList
from unic.plugins import Registry


@dataclass(frozen=True, kw_only=True)
class DatasetSpec:
    """What the command line, the tables and the evaluations need to know of a data set.

    read: (root, split) -> images; `root` is the data set's own folder. DataError when its layout is wrong.
    splits: the names of the parts to fit on and to score on.
    layout: what the folder must look like, for people.
    num_classes: None when the folder decides.
    source: where to get it.
    """

    name: str
    read: Callable[[Path, str], ImageList]
    splits: tuple[str, str] = ("train", "test")
    layout: str
    num_classes: int | None
    source: str = ""
    licence: str = ""


DATASETS: Registry[DatasetSpec] = Registry("data set", "unic.data.datasets")
