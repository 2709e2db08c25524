"""What the sets around ImageNet-1K share: its classes in order, and timm's lists of facts about them."""

import functools
import importlib.resources

from unic.core.errors import DataError


@functools.cache
def wnids() -> tuple[str, ...]:
    """The WordNet ids of the 1,000 classes, sorted: a class's position is its label, in every subset."""
    from timm.data.imagenet_info import ImageNetInfo

    return tuple(ImageNetInfo("imagenet-1k").label_names())


@functools.cache
def wnid_numbers() -> dict[str, int]:
    """The label of each WordNet id."""
    return {wnid: i for i, wnid in enumerate(wnids())}


def class_subset(name: str) -> tuple[int, ...]:
    """The labels of the classes that a set of ImageNet's kind has, ascending; name: imagenet_r, imagenet_a."""
    return tuple(sorted(int(line) for line in timm_facts(f"{name}_indices.txt").split()))


def timm_facts(file: str) -> str:
    """The content of a file that timm keeps beside its ImageNetInfo."""
    path = importlib.resources.files("timm.data") / "_info" / file
    if not path.is_file():
        raise DataError(f"the installed timm has no {file}; install timm 1.0.31, which has")
    return path.read_text(encoding="utf-8")
