"""From image files to batches: which images make up a step, in which order, what replaces unreadable ones.

Everything is a function of (seed, step): the number of workers, ranks and restarts changes nothing.
Letters: B images of a batch, S side of a view in pixels.
"""

import json
import logging
import math
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal, TypeVar

import numpy as np
import torch
from jaxtyping import UInt8
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from unic.core import rng
from unic.core.errors import ConfigError, DataError
from unic.core.files import read_lines, write_atomically
from unic.data.images import BadImage, ImageList, read_image
from unic.data.order import Sources, epoch_order
from unic.data.views import ViewConfig, cut, evaluation_view, geometric_draws
from unic.data.views_fast import read_view
from unic.data.worker import leave_signals_to_main
from unic.method.tokens import Batch

log = logging.getLogger(__name__)

T = TypeVar("T")

_MAX_REPLACEMENTS = 100


@dataclass(frozen=True, kw_only=True)
class DataConfig:
    """Which images the student learns from, and how they are cut."""

    root: tuple[str, ...] = ()
    """Folders of images (with subfolders), or text files that list images; several are mixed."""
    weights: tuple[float, ...] = ()
    """Share of each root in an epoch, in any unit; empty: every image once an epoch."""
    val_root: tuple[str, ...] = ()
    """Images for the validation loss; folders or lists like `root`."""
    views: ViewConfig = field(default_factory=ViewConfig)
    max_bad: float = 0.01
    """Share of unreadable images above which the run stops; up to there, others take their place."""

    def __post_init__(self) -> None:
        if self.weights and len(self.weights) != len(self.root):
            raise ConfigError(
                f"{len(self.weights)} weights for {len(self.root)} roots; wanted one a root, or none"
            )
        if not all(0 <= weight < math.inf for weight in self.weights) or (
            self.weights and not sum(self.weights)
        ):
            raise ConfigError(f"weights are {self.weights}; wanted numbers from 0, not all 0")
        if not 0 <= self.max_bad <= 1:
            raise ConfigError(f"max_bad is {self.max_bad}; wanted a share from 0 to 1")


class BadImages:
    """The unreadable images met so far; each is logged once, and written once as a JSON line.

    file: where the lines go ({"path", "reason"}); those of an earlier start are not repeated.
    """

    def __init__(self, file: Path | None = None):
        self.reasons: dict[str, str] = {}
        self._file = file
        self._written = _paths_in(file) if file and file.exists() else set()

    def __len__(self) -> int:
        return len(self.reasons)

    def add(self, bad: BadImage) -> None:
        if bad.path in self.reasons:
            return
        self.reasons[bad.path] = bad.reason
        log.warning("unreadable image, another takes its place: %s", bad)
        if self._file and bad.path not in self._written:
            with self._file.open("a") as lines:
                lines.write(json.dumps({"path": bad.path, "reason": bad.reason}) + "\n")

    def too_many(self, num_images: int, max_bad: float) -> bool:
        return len(self) > max_bad * num_images

    def error(self, num_images: int, max_bad: float) -> DataError:
        """What to raise when there are too many: how many, of how many, allowed, and the first three."""
        first = "; ".join(f"{path}: {reason}" for path, reason in list(self.reasons.items())[:3])
        return DataError(
            f"{len(self)} of {num_images} images cannot be read ({len(self) / num_images:.2%}; max_bad "
            f"allows {max_bad:.2%}); repair or remove them, or raise max_bad. First: {first}"
        )


def training_batches(
    sources: Sources,
    cfg: DataConfig,
    *,
    seed: int,
    global_batch: int,
    num_steps: int,
    bad: BadImages,
    start_step: int = 0,
    rank: int = 0,
    world: int = 1,
    micro_batch: int | None = None,
    workers: int = 0,
    prefetch: int = 2,
    pin_memory: bool = False,
) -> Iterator[list[Batch]]:
    """This rank's micro-batches of each step, from `start_step` to the end of the run.

    num_steps: of the whole run, so `num_steps - start_step` lists come.
    An epoch has len(sources) // global_batch steps; the rest of its order is left out. All ranks cut a step
    into the same number of micro-batches, of at most `micro_batch` images when the ranks' shares are equal.
    An unreadable image is put into `bad`, and another one, drawn by its key, takes its place.
    """
    steps = _Steps(sources, cfg, seed, global_batch, rank, world, micro_batch)
    loader = _loader(steps, range(start_step, num_steps), workers, prefetch, pin_memory)
    return _collect(loader, bad)


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
    loader = _loader(_Positions(paths, image_sizes, positions), range(len(positions)), workers, 2, pin_memory)
    return _complete(loader, on_bad)


def auto_workers() -> int:
    """Data processes for this process: none on two cores, where they would take turns with it; at most 8."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    cores //= int(os.environ.get("LOCAL_WORLD_SIZE", "1"))
    return 0 if cores <= 2 else min(8, cores - 1)


@dataclass(frozen=True)
class _Work:
    """What a worker makes of one step. Errors travel as values: torch would bury them in a traceback."""

    batches: list[Batch]
    bad: list[BadImage]
    error: DataError | None = None

    def pin_memory(self) -> "_Work":
        return _Work([batch.pin_memory() for batch in self.batches], self.bad, self.error)


class _Steps(Dataset[_Work]):
    """The training images as a list of steps."""

    def __init__(
        self,
        sources: Sources,
        cfg: DataConfig,
        seed: int,
        global_batch: int,
        rank: int,
        world: int,
        micro_batch: int | None,
    ):
        if global_batch < world:
            raise ConfigError(
                f"a global batch of {global_batch} leaves some of {world} processes without an image"
            )
        if len(sources) < global_batch:
            raise DataError(
                f"{len(sources)} images are fewer than the global batch of {global_batch}; lower the batch"
            )
        self._sources, self._cfg, self._seed = sources, cfg, seed
        self._paths = _packed(sources.paths())
        self._steps_per_epoch = len(sources) // global_batch
        self._positions = np.array_split(np.arange(global_batch), world)[rank]
        largest, smallest = math.ceil(global_batch / world), global_batch // world
        # The same number on every rank, because ranks may talk to each other in each; and none may be empty.
        self._num_micro = min(math.ceil(largest / (micro_batch or largest)), smallest)
        self._order: tuple[int, tuple[np.ndarray, np.ndarray]] | None = None
        self._global_batch = global_batch

    def __getitem__(self, step: int) -> _Work:
        epoch, place = divmod(step, self._steps_per_epoch)
        if self._order is None or self._order[0] != epoch:
            self._order = (epoch, epoch_order(self._sources, self._cfg.weights, self._seed, epoch))
        indices, views = self._order[1]
        positions = place * self._global_batch + self._positions
        work = _Work([], [])
        try:
            for part in np.array_split(positions, self._num_micro):
                work.batches.append(self._batch(indices[part], views[part], work.bad))
        except DataError as error:
            return _Work([], work.bad, error)
        return work

    def _batch(self, indices: np.ndarray, views: np.ndarray, bad: list[BadImage]) -> Batch:
        size = self._cfg.views.image_size
        images = torch.empty(len(indices), 3, size, size, dtype=torch.uint8)
        index, view = torch.from_numpy(indices), torch.from_numpy(views)
        draws = geometric_draws(self._seed, view, index).tolist()
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
                return self._view(_path(self._paths, candidate), draws), candidate
            except BadImage as error:
                bad.append(error)
            draw = rng.generator(self._seed, "replacement", view, index, attempt)
            candidate = int(draw.integers(len(self._paths)))
            draws = geometric_draws(self._seed, torch.tensor([view]), torch.tensor([candidate]))[0].tolist()
        raise DataError(
            f"{_MAX_REPLACEMENTS} images in a row cannot be read, the last: {bad[-1]}; are these the files?"
        )

    def _view(self, path: str, draws: list[float]) -> UInt8[Tensor, "3 S S"]:
        cfg = self._cfg.views
        return cut(read_image(path), draws, cfg) if cfg.pixels == "plain" else read_view(path, draws, cfg)


class _Positions(Dataset[_Work]):
    """Evaluation images as a list of batches, each in several sizes."""

    def __init__(self, paths: Sequence[str], image_sizes: Sequence[int], positions: Sequence[np.ndarray]):
        self._paths = _packed(paths)
        self._image_sizes = image_sizes
        self._positions = positions

    def __getitem__(self, number: int) -> _Work:
        views, kept, bad = [], [], []
        for position in self._positions[number].tolist():
            try:
                image = read_image(_path(self._paths, position))
            except BadImage as error:
                bad.append(error)
                continue
            views.append([evaluation_view(image, size) for size in self._image_sizes])
            kept.append(position)
        if not kept:
            return _Work([], bad)
        index = torch.tensor(kept)
        view = torch.full_like(index, -1)
        return _Work(
            [Batch(torch.stack(same_size), index, view) for same_size in zip(*views, strict=True)], bad
        )


def _loader(
    items: Dataset[_Work], order: Sequence[int], workers: int, prefetch: int, pin_memory: bool
) -> DataLoader[_Work]:
    return DataLoader(
        items,
        batch_size=None,
        sampler=order,
        num_workers=workers,
        prefetch_factor=prefetch if workers else None,
        pin_memory=pin_memory,
        collate_fn=_as_it_is,
        worker_init_fn=leave_signals_to_main,
        generator=torch.Generator(),  # torch would draw a number for its workers from the global one
    )


def _collect(loader: DataLoader[_Work], bad: BadImages) -> Iterator[list[Batch]]:
    for work in _explained(loader):
        for error in work.bad:
            bad.add(error)
        if work.error:
            raise work.error
        yield work.batches


def _complete(loader: DataLoader[_Work], on_bad: str) -> Iterator[list[Batch]]:
    for work in _explained(loader):
        if work.bad and on_bad == "error":
            more = f" (and {len(work.bad) - 1} more of its batch)" if len(work.bad) > 1 else ""
            raise BadImage(work.bad[0].path, work.bad[0].reason + more)
        for error in work.bad:
            log.warning("unreadable image left out: %s", error)
        if work.batches:
            yield work.batches


def _explained(loader: DataLoader[_Work]) -> Iterator[_Work]:
    """The loader's results; the death of one of its processes as a sentence."""
    try:
        yield from loader
    except (RuntimeError, ConnectionError, EOFError) as error:
        if isinstance(error, RuntimeError) and "DataLoader worker" not in str(error):
            raise
        reason = str(error).partition("\n")[0]
        raise DataError(
            f"a data process died ({reason}); is memory or /dev/shm full? try fewer workers"
        ) from error


def _as_it_is(work: T) -> T:
    return work


def _packed(paths: Sequence[str]) -> np.ndarray:
    """One array of bytes: of a list of a million strings, every forked worker would come to hold a copy."""
    return np.array([os.fsencode(path) for path in paths], dtype=np.bytes_)


def _path(packed: np.ndarray, number: int) -> str:
    return os.fsdecode(bytes(packed[number]))


def _paths_in(file: Path) -> set[str]:
    content = file.read_text()
    whole = content[: content.rfind("\n") + 1]
    if whole != content:  # a kill cut the last line short, and the next one must not be joined to it
        write_atomically(file, whole.encode())
    return {record["path"] for record in read_lines(file)}
