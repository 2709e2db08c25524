"""Images for evaluation: every one once, in order, in the plain view.

Letters: S side of a view in pixels.
"""

import logging
from collections.abc import Iterator, Sequence
from typing import Literal

import numpy as np
import torch
from torch.utils.data import DataLoader, Dataset

from unic.data.crop import evaluation_view
from unic.data.decode import BadImage, read_image
from unic.data.labeled_images import ImageList
from unic.data.worker_processes import (
    LoadedBatches,
    data_loader,
    pack_paths,
    unpack_path,
    with_explained_errors,
)
from unic.method.types import Batch

log = logging.getLogger(__name__)


def evaluation_batches(
    images: ImageList | Sequence[str],
    image_size: int,
    *,
    batch_size: int,
    rank: int = 0,
    world: int = 1,
    workers: int = 0,
    on_bad: Literal["error", "skip"] = "error",
) -> Iterator[Batch]:
    """Every image once over all ranks, in order, in the plain view; `index` is its position in `images`.

    on_bad: "error" raises BadImage at the first unreadable image; "skip" leaves it out and logs it.
    """
    mine = np.array_split(np.arange(len(images)), world)[rank]
    positions = [mine[i : i + batch_size] for i in range(0, len(mine), batch_size)]
    for views in evaluation_views(images, (image_size,), positions, workers=workers, on_bad=on_bad):
        yield from views


def evaluation_views(
    images: ImageList | Sequence[str],
    image_sizes: Sequence[int],
    positions: Sequence[np.ndarray],
    *,
    workers: int = 0,
    pin_memory: bool = False,
    on_bad: Literal["error", "skip"] = "error",
) -> Iterator[list[Batch]]:
    """For each of `positions` the plain views of the images there: one batch a size, of images decoded once.

    positions: positions in `images`, and of the batches' `index`.
    on_bad: "error" raises BadImage at the first unreadable image; "skip" leaves it out and logs it.
    """
    paths = images.paths if isinstance(images, ImageList) else images
    loader = data_loader(
        _Positions(paths, image_sizes, positions), range(len(positions)), workers, pin_memory
    )
    return _complete(loader, on_bad)


class _Positions(Dataset[LoadedBatches]):
    """Evaluation images as a list of batches, each in several sizes."""

    def __init__(self, paths: Sequence[str], image_sizes: Sequence[int], positions: Sequence[np.ndarray]):
        self._paths = pack_paths(paths)
        self._image_sizes = image_sizes
        self._positions = positions

    def __getitem__(self, number: int) -> LoadedBatches:
        views, kept, bad = [], [], []
        for position in self._positions[number].tolist():
            try:
                image = read_image(unpack_path(self._paths, position))
            except BadImage as error:
                bad.append(error)
                continue
            views.append([evaluation_view(image, size) for size in self._image_sizes])
            kept.append(position)
        if not kept:
            return LoadedBatches([], bad)
        index = torch.tensor(kept)
        view = torch.full_like(index, -1)
        return LoadedBatches(
            [Batch(torch.stack(same_size), index, view) for same_size in zip(*views, strict=True)], bad
        )


def _complete(loader: DataLoader[LoadedBatches], on_bad: str) -> Iterator[list[Batch]]:
    for work in with_explained_errors(loader):
        if work.bad and on_bad == "error":
            more = f" (and {len(work.bad) - 1} more of its batch)" if len(work.bad) > 1 else ""
            raise BadImage(work.bad[0].path, work.bad[0].reason + more)
        for error in work.bad:
            log.warning("unreadable image left out: %s", error)
        if work.batches:
            yield work.batches
