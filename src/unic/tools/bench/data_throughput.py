"""How many training images a second come from the disk, decoded and cut: a step cannot be faster."""

import math
import tempfile
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

import numpy as np
from PIL import Image

from unic.core import keyed_random
from unic.data.bad_images import BadImages
from unic.data.loader import StepPlan, training_batches
from unic.data.sources import read_sources
from unic.train.recipe import Recipe

# Size of the made-up photographs, about that of ImageNet's.
_WIDTH, _HEIGHT = 500, 375
_PHOTOGRAPHS = 64


class DataThroughput(NamedTuple):
    """made_up: whether the images were made here; num_images: of the folders, not only of those read."""

    images_per_second: float
    workers: int
    made_up: bool
    num_images: int


def time_reading(recipe: Recipe, roots: Sequence[str], *, batch: int, workers: int) -> DataThroughput:
    """Times `training_batches`. roots: empty for made-up photographs. Raises DataError as a run would."""
    if roots:
        return _timed(recipe, roots, batch, workers, made_up=False)
    with tempfile.TemporaryDirectory() as folder:
        _write_photographs(Path(folder), max(batch, _PHOTOGRAPHS))
        return _timed(recipe, [folder], batch, workers, made_up=True)


def _timed(
    recipe: Recipe, roots: Sequence[str], batch: int, workers: int, *, made_up: bool
) -> DataThroughput:
    sources = read_sources(roots)
    cfg = replace(recipe.data, root=tuple(roots), weights=())
    ahead = 1 + 2 * workers  # steps that are there when the first one is asked for, or on their way
    counted = max(2, math.ceil(_PHOTOGRAPHS / batch)) * (1 + workers)
    plan = StepPlan(sources=sources, cfg=cfg, seed=recipe.seed, global_batch=batch)
    steps = training_batches(plan, range(ahead + counted), bad=BadImages(), workers=workers)
    for _ in range(ahead):
        next(steps)
    start = time.perf_counter()
    for _ in steps:
        pass
    rate = counted * batch / (time.perf_counter() - start)
    return DataThroughput(rate, workers, made_up, len(sources))


def _write_photographs(folder: Path, count: int) -> None:
    """Smooth colours with some grain: files of about 100 kB, as photographs have."""
    draw = keyed_random.generator(0, "photographs")
    for number in range(count):
        coarse = Image.fromarray(draw.integers(0, 256, (12, 16, 3), dtype=np.uint8))
        smooth = np.asarray(coarse.resize((_WIDTH, _HEIGHT), Image.Resampling.BICUBIC), dtype=np.float32)
        grain = draw.normal(0, 8, smooth.shape).astype(np.float32)
        Image.fromarray((smooth + grain).clip(0, 255).astype(np.uint8)).save(
            folder / f"{number}.jpg", quality=90
        )
