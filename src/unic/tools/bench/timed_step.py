"""The training step of a run (`unic.train.train_step`), timed on made-up images."""

import time
import warnings
from collections.abc import Iterable
from dataclasses import dataclass

import torch
from torch.profiler import ProfilerActivity, profile

from unic.core.to_device import wait_for
from unic.method.types import Batch
from unic.tools.bench.machine import peak_memory
from unic.tools.bench.random_teacher import load_or_randomize
from unic.train.build_run import build_step
from unic.train.monitor.metric_sums import num_sums, readable
from unic.train.recipe import Recipe
from unic.train.train_step import StepOutcome, train_step

# The names that the step's code gives its parts by `record_function`.
PARTS = ("augmentation", "teachers", "student_forward", "ladder_and_loss", "backward", "optimizer")

# So many that what the host does before the first of them does not count.
_STEPS_IN_A_ROW = 8

# Long enough that the learning rate stays that of the first steps, where random weights cannot run away.
_STEPS_PER_EPOCH = 5_000


@dataclass(frozen=True)
class Timed:
    """One step. loss: mean over images, teachers and token types, none of them dropped."""

    seconds: float
    loss: float
    gradient_norm: float


@dataclass(frozen=True)
class StepFacts:
    """What stays the same from step to step, and the peak so far.

    metrics_bytes, gradient_bytes: what a process shares with the others in a step.
    """

    teachers: dict[str, str]
    micro_batch: int
    metrics_bytes: int
    gradient_bytes: int
    peak_memory_bytes: int


class TimedStep:
    """The step of a recipe: batch size, kernels and precision are the recipe's, as in a run."""

    def __init__(self, recipe: Recipe, device: torch.device):
        self.recipe, self.device = recipe, device
        loaded = {reference: load_or_randomize(reference) for reference in recipe.teachers}
        self._weights = {reference: weights for reference, (_, weights) in loaded.items()}
        self._context, self.state = build_step(
            recipe, device, steps_per_epoch=_STEPS_PER_EPOCH, load=lambda reference: loaded.pop(reference)[0]
        )
        batches = made_up_batches(recipe, self._context.micro_batch)
        self._batches = batches if device.type == "cpu" else [batch.pin_memory() for batch in batches]

    def step(self) -> Timed:
        """One step; the weights move. On an accelerator the mean of several, as the host runs ahead of it in a run."""
        # The first one alone: it is the one that settings are compared by.
        count = 1 if self.device.type == "cpu" or self.state.step == 0 else _STEPS_IN_A_ROW
        wait_for(self.device)
        start = time.perf_counter()
        outcome = [self._step() for _ in range(count)][-1]
        wait_for(self.device)
        seconds = (time.perf_counter() - start) / count
        names = self._context.teacher_names
        losses = readable(outcome.sums, names)
        tokens = [losses[f"loss/{name}/{token}"] for name in names for token in ("cls", "patches")]
        return Timed(seconds, sum(tokens) / len(tokens), outcome.grad_norm.item())

    def shares(self) -> dict[str, float]:
        """Share of each of PARTS in the time of a step, as torch's profiler sees it: of what an accelerator was busy
        with, else of the clock.
        """
        activities = [ProfilerActivity.CPU]
        if self.device.type != "cpu":
            activities.append(ProfilerActivity.CUDA)
        with profile(activities=activities) as profiler:
            self._step()
            wait_for(self.device)
        return shares_of_parts(profiler.events() or (), on_cpu=self.device.type == "cpu")

    def count_host_syncs(self) -> int | None:
        """How often the host waits for the device in a step; None where there is nothing to wait for."""
        if self.device.type != "cuda":
            return None
        torch.cuda.set_sync_debug_mode("warn")
        try:
            with warnings.catch_warnings(record=True) as caught:
                warnings.simplefilter("always")
                self._step()
        finally:
            torch.cuda.set_sync_debug_mode("default")
        return sum("synchronizing" in str(warning.message) for warning in caught)

    def facts(self) -> StepFacts:
        trained = [p for p in self.state.student.parameters() if p.requires_grad]
        dims = self._context.teachers.dims.values()
        # Metric sums; of each teacher two counts and four sums a feature.
        shared = num_sums(len(dims)) + sum(2 + 4 * max(widths) for widths in dims)
        return StepFacts(
            teachers=self._weights,
            micro_batch=self._context.micro_batch,
            metrics_bytes=4 * shared,
            gradient_bytes=sum(p.numel() * p.element_size() for p in trained),
            peak_memory_bytes=peak_memory(self.device),
        )

    def close(self) -> None:
        """For settings that have something to end."""

    def _step(self) -> StepOutcome:
        return train_step(self._context, self.state, self.state.student, self._batches, torch.zeros(0))


def shares_of_parts(events: Iterable, *, on_cpu: bool) -> dict[str, float]:
    """Of the events of a profiler; those of one part may come several times.

    on_cpu: by the length of the parts themselves; else by the kernels that were launched while a part went on, by
      whichever thread: autograd launches from one of its own.
    """
    events = list(events)
    spans = [event for event in events if event.name in PARTS and event.device_type.name == "CPU"]
    totals = dict.fromkeys(PARTS, 0.0)
    if on_cpu:
        for span in spans:
            totals[span.name] += span.time_range.elapsed_us()
    else:
        for event in events:
            for span in spans:
                if span.time_range.start <= event.time_range.start < span.time_range.end:
                    totals[span.name] += sum(kernel.duration for kernel in event.kernels)
    whole = sum(totals.values())
    return {part: length / whole for part, length in totals.items()}


def made_up_batches(recipe: Recipe, size: int) -> list[Batch]:
    """The micro-batches of a step as a loader gives them, on the CPU; the same for every setting."""
    generator = torch.Generator().manual_seed(recipe.seed)
    count, side = recipe.optim.batch_size, recipe.data.views.image_size
    images = torch.randint(0, 256, (count, 3, side, side), dtype=torch.uint8, generator=generator)
    index = torch.arange(count)
    view = torch.zeros_like(index)
    number = -(-count // size)
    parts = [tensor.tensor_split(number) for tensor in (images, index, view)]
    return [Batch(*part) for part in zip(*parts, strict=True)]
