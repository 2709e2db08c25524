"""What a training step of a recipe costs on this machine, exact and fast side by side. Nothing is ever downloaded.

Each setting lives in a process of its own, because its memory, and what it asks of malloc, are those of a process;
they take turns, one step each (on an accelerator eight), so that other work on the machine disturbs all of them alike.
"""

import contextlib
import math
import statistics
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any, NamedTuple

import torch

from unic.core.environment import environment
from unic.data.worker_processes import auto_workers
from unic.tools.bench.data_throughput import DataThroughput, time_reading
from unic.tools.bench.machine import commit, matmul_flops, processor
from unic.tools.bench.options import BenchOptions
from unic.tools.bench.subprocess_runner import SubprocessRunner
from unic.tools.bench.timed_step import Timed, TimedStep
from unic.tools.estimate import IMAGENET_1K, UTILISATION, Estimate, estimate
from unic.train.recipe import Recipe

# Rounds after the first steps that are not timed: so long do a process's blocks of memory take to find their places.
_WARM_UP = 2

# Largest relative difference between the losses of exact and fast: rounding, and nothing else.
TOLERANCE = {"fp32": 1e-5, "bf16": 1e-2}


class Setting(NamedTuple):
    """One way to compute a step."""

    kernels: str
    precision: str

    @property
    def name(self) -> str:
        return f"{self.kernels} {self.precision}"


Measured = TimedStep | SubprocessRunner
"""A setting that can be asked for steps, in this process or in one of its own."""


def measure(
    recipe: Recipe,
    choices: BenchOptions,
    *,
    device: torch.device,
    start: Callable[[Recipe, torch.device, int], Measured] = SubprocessRunner,
) -> dict[str, Any]:
    """All figures as JSON has them, in seconds, bytes and FLOP (a multiply-accumulate is 2).

    start: begins to measure a recipe on a device with so many threads.
    Raises ConfigError for a recipe that cannot be built, or not without a download; DataError for useless images.
    """
    recipe = _with_size(recipe, choices)
    threads = choices.threads or torch.get_num_threads()
    torch.set_num_threads(threads)
    workers = auto_workers() if recipe.speed.workers is None else recipe.speed.workers
    reading = time_reading(recipe, choices.data_root, batch=choices.batch, workers=workers)
    whole = estimate(recipe, _num_images(recipe, reading))
    peaks = {name: matmul_flops(dtype, device) for name, dtype in _DTYPES.items()}

    with contextlib.ExitStack() as stack:

        def begin(setting: Setting) -> Measured:
            found = start(_set(recipe, setting, choices.batch), device, threads)
            stack.callback(found.close)
            return found

        running: dict[Setting, Measured] = {}
        first: dict[Setting, Timed] = {}
        parity: dict[str, dict[str, Any]] = {}
        for precision in ("fp32", "bf16") if choices.fp32 else ("bf16",):
            exact, fast = Setting("exact", precision), Setting("fast", precision)
            for setting in (exact, fast):
                running[setting] = begin(setting)
                first[setting] = running[setting].step()
            parity[precision] = _parity(first[exact], first[fast], precision)
            if precision == "fp32":  # makes room: it was here to be compared only
                running.pop(fast).close()
        settings = list(running)
        rounds = [
            {setting: running[setting].step() for setting in _turned(settings, number)}
            for number in range(_WARM_UP + choices.steps)
        ][_WARM_UP:]
        rows = {}
        for setting, measured in running.items():
            timed = [found[setting] for found in rounds]
            rows[setting.name] = _row(timed, measured, choices.batch, whole.flops, peaks[setting.precision])
        facts = running[settings[-1]].facts()

    agreed = all(found["agreed"] for found in parity.values())
    best = rows["fast bf16"]["images_per_second"]
    return {
        "batch": choices.batch,
        "steps": choices.steps,
        "image_size": recipe.data.views.image_size,
        "device": str(device),
        "threads": threads,
        "processor": processor(device),
        "commit": commit(),
        "environment": environment(),
        "teachers": facts.teachers,
        "flops_per_image": {
            "counted": whole.flops,
            "student": whole.student_flops,
            "teachers": {teacher.reference: teacher.flops for teacher in whole.teachers},
        },
        "matmul_flops_per_second": peaks,
        "parity": parity,
        "settings": rows,
        "ratio": best / rows["exact bf16"]["images_per_second"] if agreed else None,
        "bytes_reduced": {"metrics_and_moments": facts.metrics_bytes, "gradients": facts.gradient_bytes},
        "reading": reading._asdict(),
        "whole_recipe": _whole(whole, reading, best),
    }


_DTYPES = {"bf16": torch.bfloat16, "fp32": torch.float32}


def _with_size(recipe: Recipe, choices: BenchOptions) -> Recipe:
    if choices.image_size is None:
        return recipe
    views = replace(recipe.data.views, image_size=choices.image_size)
    student = replace(recipe.student, image_size=choices.image_size)
    return replace(recipe, student=student, data=replace(recipe.data, views=views))


def _set(recipe: Recipe, setting: Setting, batch: int) -> Recipe:
    speed: Any = {"kernels": setting.kernels, "precision": setting.precision}
    return replace(
        recipe,
        optim=replace(recipe.optim, batch_size=batch),
        speed=replace(recipe.speed, **speed),
    )


def _turned(settings: Sequence[Setting], number: int) -> list[Setting]:
    """Another one begins each round: the first of a round could have it better or worse."""
    number %= len(settings)
    return [*settings[number:], *settings[:number]]


def _parity(exact: Timed, fast: Timed, precision: str) -> dict[str, Any]:
    loss = _difference(exact.loss, fast.loss)
    return {
        "loss_exact": exact.loss,
        "loss_fast": fast.loss,
        "loss_difference": loss,
        "gradient_norm_difference": _difference(exact.gradient_norm, fast.gradient_norm),
        "tolerance": TOLERANCE[precision],
        "agreed": loss <= TOLERANCE[precision],
    }


def _difference(a: float, b: float) -> float:
    """Relative; infinite where one of the two is no number."""
    return abs(a - b) / max(abs(a), 1e-12) if math.isfinite(a) and math.isfinite(b) else math.inf


def _row(timed: list[Timed], measured: Measured, batch: int, flops: int, peak: float) -> dict[str, Any]:
    totals = [step.seconds for step in timed]
    total = statistics.median(totals)
    facts = measured.facts()
    return {
        "seconds": total,
        "seconds_least": min(totals),
        "seconds_most": max(totals),
        "seconds_by_part": {part: share * total for part, share in measured.shares().items()},
        "images_per_second": batch / total,
        "share_of_matmul_peak": flops * batch / total / peak,
        "peak_memory_bytes": facts.peak_memory_bytes,
        "host_syncs": measured.count_host_syncs(),
        "micro_batch": facts.micro_batch,
    }  # fmt: skip


def _num_images(recipe: Recipe, reading: DataThroughput) -> int | None:
    """Of the training set: those read, where they are the user's and enough for a step of the recipe."""
    enough = not reading.made_up and reading.num_images >= recipe.optim.batch_size
    return reading.num_images if enough else None


def _whole(whole: Estimate, reading: DataThroughput, images_per_second: float) -> dict[str, Any]:
    return {
        "training_images": IMAGENET_1K if whole.num_images is None else whole.num_images,
        "images_seen": whole.images_seen,
        "hours_of_steps": whole.images_seen / images_per_second / 3600,
        "hours_of_reading": whole.images_seen / reading.images_per_second / 3600,
        "h200_hours": whole.h200_hours,
        "h200_utilisation": UTILISATION,
    }
