"""Which images there are, and in which order an epoch goes through them: a function of (seed, epoch).

Letters: N images of all sources.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from jaxtyping import Int64

from unic.core import keyed_random
from unic.core.errors import ConfigError
from unic.data.folders import read_paths
from unic.data.labeled_images import ImageList


@dataclass(frozen=True)
class Sources:
    """The images of one or several roots; an image's index counts through them one after the other."""

    parts: tuple[ImageList, ...]

    def __len__(self) -> int:
        return sum(len(part) for part in self.parts)

    def paths(self) -> list[str]:
        return [path for part in self.parts for path in part.paths]

    def identity(self) -> str:
        return "+".join(part.identity() for part in self.parts)


def read_sources(roots: Sequence[str]) -> Sources:
    """Finds the images of every root; raises DataError for one that is missing or has none."""
    if not roots:
        raise ConfigError("no images: name a folder of images, or a text file that lists some, as root")
    parts = []
    for root in roots:
        paths = read_paths(Path(root))
        folder = Path(root).expanduser().absolute()
        below = folder if folder.is_dir() else folder.parent
        parts.append(ImageList(tuple(paths), name=folder.name, root=str(below)))
    return Sources(tuple(parts))


def epoch_order(
    sources: Sources, weights: Sequence[float], seed: int, epoch: int
) -> tuple[Int64[np.ndarray, " N"], Int64[np.ndarray, " N"]]:
    """The images of an epoch in their order, and for each its view: how often its root was gone through.

    Without weights every image comes once, and its view is the epoch. With weights an epoch is as long, each
    root gets its share of it, and a root's images come in successive permutations: none again before all were
    seen, across epochs too. An image that comes several times an epoch is a new view each time.
    """
    if not weights:
        order = keyed_random.generator(seed, "order", epoch).permutation(len(sources))
        return order, np.full_like(order, epoch)
    indices, views, start = [], [], 0
    counts = _largest_remainder(weights, len(sources))
    for number, (part, count) in enumerate(zip(sources.parts, counts, strict=True)):
        positions = np.arange(epoch * count, (epoch + 1) * count)
        view, place = np.divmod(positions, len(part))
        for turn in np.unique(view):
            permutation = keyed_random.generator(seed, "root", number, int(turn)).permutation(len(part))
            indices.append(start + permutation[place[view == turn]])
        views.append(view)
        start += len(part)
    shuffle = keyed_random.generator(seed, "order", epoch).permutation(len(sources))
    return np.concatenate(indices)[shuffle], np.concatenate(views)[shuffle]


def _largest_remainder(weights: Sequence[float], total: int) -> list[int]:
    """Splits `total` in proportion to `weights`; what rounding down leaves goes to the largest remainders."""
    shares = [weight / sum(weights) * total for weight in weights]
    counts = [math.floor(share) for share in shares]
    by_remainder = sorted(range(len(shares)), key=lambda i: counts[i] - shares[i])
    for i in by_remainder[: total - sum(counts)]:
        counts[i] += 1
    return counts
