"""From image files to batches: which images make up a step, in which order, what replaces unreadable ones.

Everything is a function of (seed, step): the number of workers, ranks and restarts changes nothing.
Letters: B images of a batch, S side of a view in pixels.
"""

import math
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import UInt8
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from unic.core import keyed_random
from unic.core.errors import ConfigError, DataError
from unic.data.bad_images import BadImages
from unic.data.config import DataConfig
from unic.data.crop import geometric_draws, random_resized_crop
from unic.data.crop_fast import read_view
from unic.data.decode import BadImage, read_image
from unic.data.sources import Sources, epoch_order
from unic.data.worker_processes import (
    LoadedBatches,
    data_loader,
    pack_paths,
    unpack_path,
    with_explained_errors,
)
from unic.method.types import Batch

_MAX_REPLACEMENTS = 100


@dataclass(frozen=True, kw_only=True)
class StepPlan:
    """Which images make up each step of a run, and this process's part of them: a function of (seed, step).

    An epoch has len(sources) // global_batch steps; the rest of its order is left out. All ranks cut a step into the
    same number of micro-batches, of at most `micro_batch` images when the ranks' shares are equal; None: one.
    """

    sources: Sources
    cfg: DataConfig
    seed: int
    global_batch: int
    rank: int = 0
    world: int = 1
    micro_batch: int | None = None

    def __post_init__(self) -> None:
        if self.global_batch < self.world:
            raise ConfigError(
                f"a global batch of {self.global_batch} leaves some of {self.world} processes without an image"
            )
        if len(self.sources) < self.global_batch:
            raise DataError(
                f"{len(self.sources)} images are fewer than the global batch of {self.global_batch}; lower the batch"
            )

    @property
    def steps_per_epoch(self) -> int:
        return len(self.sources) // self.global_batch

    @property
    def positions(self) -> np.ndarray:
        """Places in a step, from 0, of this process's images."""
        return np.array_split(np.arange(self.global_batch), self.world)[self.rank]

    @property
    def num_micro_batches(self) -> int:
        """The same on every rank, because ranks may talk to each other in each; and none may be empty."""
        largest, smallest = math.ceil(self.global_batch / self.world), self.global_batch // self.world
        return min(math.ceil(largest / (self.micro_batch or largest)), smallest)


def training_batches(
    plan: StepPlan, steps: range, *, bad: BadImages, workers: int = 0, pin_memory: bool = False
) -> Iterator[list[Batch]]:
    """This rank's micro-batches of each of `steps`.

    An unreadable image is put into `bad`, and another one, drawn by its key, takes its place.
    """
    return _collect(data_loader(_Steps(plan), steps, workers, pin_memory), bad)


class _Steps(Dataset[LoadedBatches]):
    """The training images as a list of steps."""

    def __init__(self, plan: StepPlan):
        self._plan = plan
        self._paths = pack_paths(plan.sources.paths())
        self._order: tuple[int, tuple[np.ndarray, np.ndarray]] | None = None

    def __getitem__(self, step: int) -> LoadedBatches:
        plan = self._plan
        epoch, place = divmod(step, plan.steps_per_epoch)
        if self._order is None or self._order[0] != epoch:
            self._order = (epoch, epoch_order(plan.sources, plan.cfg.weights, plan.seed, epoch))
        indices, views = self._order[1]
        positions = place * plan.global_batch + plan.positions
        work = LoadedBatches([], [])
        try:
            for part in np.array_split(positions, plan.num_micro_batches):
                work.batches.append(self._batch(indices[part], views[part], work.bad))
        except DataError as error:
            return LoadedBatches([], work.bad, error)
        return work

    def _batch(self, indices: np.ndarray, views: np.ndarray, bad: list[BadImage]) -> Batch:
        size = self._plan.cfg.views.image_size
        images = torch.empty(len(indices), 3, size, size, dtype=torch.uint8)
        index, view = torch.from_numpy(indices), torch.from_numpy(views)
        draws = geometric_draws(self._plan.seed, view, index).tolist()
        for i, asked in enumerate(indices.tolist()):
            images[i], index[i] = self._readable(asked, int(view[i]), draws[i], bad)
        return Batch(images, index, view)

    def _readable(
        self, index: int, view: int, draws: list[float], bad: list[BadImage]
    ) -> tuple[UInt8[Tensor, "3 S S"], int]:
        """The view of image `index`, or of the first readable one of those drawn in its place; which it is."""
        candidate = index
        for attempt in range(_MAX_REPLACEMENTS):
            try:
                return self._view(unpack_path(self._paths, candidate), draws), candidate
            except BadImage as error:
                bad.append(error)
            draw = keyed_random.generator(self._plan.seed, "replacement", view, index, attempt)
            candidate = int(draw.integers(len(self._paths)))
            draws = geometric_draws(self._plan.seed, torch.tensor([view]), torch.tensor([candidate]))[
                0
            ].tolist()
        raise DataError(
            f"{_MAX_REPLACEMENTS} images in a row cannot be read, the last: {bad[-1]}; are these the files?"
        )

    def _view(self, path: str, draws: list[float]) -> UInt8[Tensor, "3 S S"]:
        cfg = self._plan.cfg.views
        return (
            random_resized_crop(read_image(path), draws, cfg)
            if cfg.pixels == "exact"
            else read_view(path, draws, cfg)
        )


def _collect(loader: DataLoader[LoadedBatches], bad: BadImages) -> Iterator[list[Batch]]:
    for work in with_explained_errors(loader):
        for error in work.bad:
            bad.add(error)
        if work.error:
            raise work.error
        yield work.batches
