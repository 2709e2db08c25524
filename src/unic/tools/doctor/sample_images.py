"""The images the doctor looks at: a spread over the folder, in the evaluation view, at each teacher's size.

Letters: M images, S pixels a side.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Int64, UInt8
from torch import Tensor

from unic.core.errors import ConfigError, DataError
from unic.core.progress import with_progress
from unic.data.eval_loader import evaluation_views
from unic.data.folders import read_paths
from unic.data.worker_processes import auto_workers


@dataclass(frozen=True)
class SampleImages:
    """Decoded images.

    views: by image size, all images in one tensor.
    index: of each image, its position among all of the folder.
    unreadable: paths of those that were chosen and left out.
    """

    views: dict[int, UInt8[Tensor, "M 3 _ _"]]
    index: Int64[Tensor, " M"]
    paths: list[str]
    unreadable: list[str]

    def __len__(self) -> int:
        return len(self.paths)


def read_sample_images(
    data: Path, image_sizes: Iterable[int], max_images: int, *, batch_size: int
) -> SampleImages:
    """At most `max_images` of a folder (or list) of images, at equal distances in its order.

    Unreadable ones are named in the log and left out. Raises DataError where no image can be read.
    """
    if max_images < 1:
        raise ConfigError(f"max_images must be at least 1, got {max_images}")
    sizes = sorted(set(image_sizes))
    paths = read_paths(data)
    chosen = spread(len(paths), max_images)
    parts = [chosen[start : start + batch_size] for start in range(0, len(chosen), batch_size)]
    steps = evaluation_views(paths, sizes, parts, workers=auto_workers(), on_bad="skip")
    read = list(with_progress(steps, len(chosen), "reading", size=lambda views: len(views[0].index)))
    if not read:
        raise DataError(
            f"{data}: none of the {len(chosen)} images looked at can be read, such as {paths[chosen[0]]}; "
            "is this the right folder?"
        )
    index = torch.cat([same[0].index for same in read])
    good = set(index.tolist())
    return SampleImages(
        {size: torch.cat([same[number].images for same in read]) for number, size in enumerate(sizes)},
        index,
        [paths[position] for position in index.tolist()],
        [paths[position] for position in chosen.tolist() if position not in good],
    )


def spread(count: int, most: int) -> Int64[np.ndarray, " _"]:
    """Positions of at most `most` out of `count` things, ascending and at equal distances."""
    kept = min(count, most)
    return np.arange(kept) * count // kept
