"""The processes that read images: how many, what they hand over, what they do first, how their death is told."""

import multiprocessing
import os
import threading
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TypeVar

import numpy as np
import torch
from torch.utils.data import DataLoader, Dataset

from unic.core.errors import DataError
from unic.data.decode import BadImage
from unic.method.types import Batch


def leave_signals_to_main(number: int) -> None:
    """Ctrl-C and `timeout` signal a whole process group; the main one decides, and needs data until it stops."""
    # Not by ignoring SIGTERM: multiprocessing ends its processes with it, and would wait for ever.
    os.setpgrp()
    end_with_main(number)


def end_with_main(_: int) -> None:
    """Ends this process when the one that reads from it is gone, killed or not.

    Torch looks whether the process that forked this one lives on, and a fork server does.
    """
    threading.Thread(target=_wait_and_end, daemon=True).start()


def _wait_and_end() -> None:
    main = multiprocessing.parent_process()
    if main is not None:
        main.join()
        os._exit(1)


T = TypeVar("T")


def auto_workers() -> int:
    """Data processes for this process: none on two cores, where they would take turns with it; at most 8."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    cores //= int(os.environ.get("LOCAL_WORLD_SIZE", "1"))
    return 0 if cores <= 2 else min(8, cores - 1)


@dataclass(frozen=True)
class LoadedBatches:
    """What a worker makes of one step. Errors travel as values: torch would bury them in a traceback."""

    batches: list[Batch]
    bad: list[BadImage]
    error: DataError | None = None

    def pin_memory(self) -> "LoadedBatches":
        return LoadedBatches([batch.pin_memory() for batch in self.batches], self.bad, self.error)


def data_loader(items: Dataset[T], order: Sequence[int], workers: int, pin_memory: bool) -> DataLoader[T]:
    """Each item as it is, in this order."""
    return DataLoader(
        items,
        batch_size=None,
        sampler=order,
        num_workers=workers,
        prefetch_factor=2 if workers else None,
        pin_memory=pin_memory,
        collate_fn=_as_it_is,
        worker_init_fn=leave_signals_to_main,
        generator=torch.Generator(),  # torch would draw a number for its workers from the global one
    )


def with_explained_errors(loader: DataLoader[T]) -> Iterator[T]:
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


def pack_paths(paths: Sequence[str]) -> np.ndarray:
    """One array of bytes: of a list of a million strings, every forked worker would come to hold a copy."""
    return np.array([os.fsencode(path) for path in paths], dtype=np.bytes_)


def unpack_path(packed: np.ndarray, number: int) -> str:
    return os.fsdecode(bytes(packed[number]))
