"""Crops to learn from, with their truth: which ones make up a step, and how they are read.

Each is a function of (seed, image, number), so that workers, restarts and the two ways of learning (crops made afresh,
or a fixed number of them stored as features) agree: crop n of an image is the same everywhere.
Letters: B crops, H W pixels.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import torch
from jaxtyping import Int64, Shaped, UInt8
from torch import Tensor
from torch.utils.data import Dataset

from unic.core import keyed_random
from unic.core.errors import DataError
from unic.data.labeled_images import ImageList
from unic.data.worker_processes import data_loader, with_explained_errors

Key = tuple[int, int]
"""Position of an image in its list, and which of its crops."""


@dataclass(frozen=True)
class CropBatch:
    """pixels: filled up at the right and the bottom; `inside` says how much of it is picture (height, width).

    truth: of each pixel, in the type of the task.
    """

    pixels: UInt8[Tensor, "B 3 H W"]
    inside: Int64[Tensor, "B 2"]
    truth: Shaped[Tensor, "B H W"]


@dataclass(frozen=True, kw_only=True)
class CropSpec:
    """How crops are made of the images of a task.

    cut: (file of the image, file of its truth, randomness) -> a crop of at most `size`, and the truth of its pixels.
    size: height and width of crops, in pixels.
    beyond: the truth where there is no picture, which counts nowhere.
    facts: everything that decides the crops but the images, for keys of what is kept.
    """

    images: ImageList
    cut: Callable[[str, str, np.random.Generator], tuple[Tensor, Tensor]]
    size: tuple[int, int]
    beyond: int | float
    truth_dtype: torch.dtype
    seed: int
    facts: dict

    def views(
        self,
        numbers: range,
        keys_of: Callable[[int], Sequence[Key]],
        *,
        workers: int,
        pin_memory: bool,
    ) -> Iterator[CropBatch]:
        """The crops of some steps or batches. Raises DataError, naming the file, for what cannot be read.

        keys_of: (number) -> the crops it is made of; sent to the processes that read.
        """
        loader = data_loader(_Crops(self, keys_of), numbers, workers, pin_memory)
        for batch in with_explained_errors(loader):
            if isinstance(batch, DataError):
                raise batch
            yield CropBatch(*batch)


def keys_of_step(
    step: int, batch: int, num_images: int, seed: int, num_views: int | None = None
) -> list[Key]:
    """The crops of one step: every image once an epoch, in an order of the epoch's own, crop number = epoch.

    num_views: after so many epochs the crops come again; None: they never do.
    Epochs follow each other without a gap: a batch may hold the end of one and the start of the next.
    """
    keys = []
    for place in range(step * batch, (step + 1) * batch):
        epoch, position = divmod(place, num_images)
        order = _order(num_images, seed, epoch)
        keys.append((int(order[position]), epoch if num_views is None else epoch % num_views))
    return keys


@lru_cache(maxsize=4)
def _order(num_images: int, seed: int, epoch: int) -> np.ndarray:
    return keyed_random.generator(seed, "dense order", epoch).permutation(num_images)


class _Crops(Dataset):
    def __init__(self, crops: CropSpec, keys_of: Callable[[int], Sequence[Key]]):
        self._crops = crops
        self._keys_of = keys_of

    def __getitem__(self, number: int) -> tuple[Tensor, Tensor, Tensor] | DataError:
        """Errors travel as values: torch would bury them in a traceback."""
        spec, keys = self._crops, self._keys_of(number)
        pixels = torch.zeros(len(keys), 3, *spec.size, dtype=torch.uint8)
        truth = torch.full((len(keys), *spec.size), spec.beyond, dtype=spec.truth_dtype)
        inside = torch.zeros(len(keys), 2, dtype=torch.int64)
        assert spec.images.maps is not None, "read_splits gives dense tasks images with maps"
        try:
            for i, (position, view) in enumerate(keys):
                draws = keyed_random.generator(spec.seed, "dense view", position, view)
                crop, of_crop = spec.cut(spec.images.paths[position], spec.images.maps[position], draws)
                height, width = of_crop.shape
                pixels[i, :, :height, :width] = crop
                truth[i, :height, :width] = of_crop
                inside[i, 0], inside[i, 1] = height, width
        except DataError as error:
            return error
        return pixels, inside, truth
