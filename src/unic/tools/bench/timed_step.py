"""One training step, taken apart: the calls of train/update.py with a clock between them, on made-up images."""

import itertools
import time
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from unic.data.augment import augment
from unic.kernels.choose import apply_fast_kernels, images_at_once
from unic.kernels.token_loss import TOKEN_LOSSES
from unic.method.standardize import Standardizer
from unic.method.step import Step, distill_step
from unic.method.tokens import Batch, Tokens
from unic.models.student import build_student
from unic.teachers.live_teachers import LiveTeachers, check_names
from unic.tools.bench.machine import peak_memory
from unic.tools.bench.random_teacher import load_or_randomize
from unic.train.build_run import micro_batch
from unic.train.checkpoint import TrainState
from unic.train.monitor.metric_sums import num_sums, pack, step_sums
from unic.train.optim import build_optimizer, learning_rate
from unic.train.recipe import Recipe
from unic.train.train_step import all_finite, apply_update, mean_gradients, total

PARTS = ("augmentation", "teachers", "student_forward", "ladder_and_loss", "backward", "optimizer")

# So many that what the host does before the first of them does not count.
_STEPS_IN_A_ROW = 8

# Long enough that the learning rate stays that of the first steps, where random weights cannot run away.
_STEPS_PER_EPOCH = 5_000


@dataclass(frozen=True)
class Timed:
    """A step by part, in seconds.

    loss: mean over images and teachers, none of them dropped.
    """

    seconds: dict[str, float]
    total: float
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


class TrainingStep:
    """The step of a recipe: batch size, kernels and precision are the recipe's, as in `unic.train.build_run`."""

    def __init__(self, recipe: Recipe, device: torch.device):
        check_names(recipe.teachers)
        self.recipe, self.device = recipe, device
        loaded = {reference: load_or_randomize(reference) for reference in recipe.teachers}
        encoders = [encoder for encoder, _ in loaded.values()]
        widths = {encoder.name: encoder.widths for encoder in encoders}
        student = build_student(recipe.student, recipe.ladder, widths, seed=recipe.seed).to(device)
        self._teachers = LiveTeachers(encoders, student.encoder.grid).to(device)
        standardizers = {name: Standardizer(w, recipe.statistics).to(device) for name, w in widths.items()}
        optimizer = build_optimizer(student.named_parameters(), recipe.optim)
        self.state = TrainState(
            student, standardizers, optimizer, torch.zeros(num_sums(len(widths)), device=device)
        )
        best = None
        if recipe.speed.kernels == "fast":
            apply_fast_kernels(student, self._teachers, standardizers.values(), device, self._autocast)
            best = images_at_once(student, device)
        self._micro_batch = micro_batch(recipe, best)
        self._batches = made_up_batches(recipe, self._micro_batch)
        if device.type != "cpu":
            self._batches = [batch.pin_memory() for batch in self._batches]
        self._weights = {reference: weights for reference, (_, weights) in loaded.items()}
        self._metrics_bytes = 0
        self._clock = _Clock(device)
        self._project, student.project = student.project, self._timed_project

    def step(self) -> Timed:
        """One step; the weights move. On an accelerator the mean of several, as the host runs ahead of it in a run."""
        self._clock = clock = _Clock(self.device)
        # The first one alone: it is the one that settings are compared by.
        count = 1 if self.device.type == "cpu" or self.state.step == 0 else _STEPS_IN_A_ROW
        loss, norm = [self._step(clock) for _ in range(count)][-1]
        seconds = {part: length / count for part, length in clock.seconds().items()}
        return Timed(seconds, sum(seconds.values()), loss.item(), norm.item())

    def _step(self, clock: "_Clock") -> tuple[Tensor, Tensor]:
        """Loss and gradient norm of one step."""
        recipe, fast = self.recipe, self.recipe.speed.kernels == "fast"
        steps: list[Step] = []
        for batch in self._batches:
            batch = augment(batch, recipe.seed, recipe.data.views, self.device, at_once=fast)
            clock.mark("augmentation")
            with torch.autocast(self.device.type, self._autocast, enabled=self._autocast is not None):
                step = distill_step(
                    self._timed_student,
                    self._teachers,
                    self.state.standardizers,
                    batch,
                    self.recipe.loss,
                    seed=self.recipe.seed,
                    num_drop_paths=self.state.student.num_draws,
                    token_loss=TOKEN_LOSSES[self.recipe.speed.kernels],
                )
            clock.mark("ladder_and_loss")
            step.loss_sum.backward()
            clock.mark("backward")
            steps.append(step)
        sums = torch.stack([step_sums(step) for step in steps]).sum(0)
        moments = total([step.moments for step in steps])
        vector = pack([sums], moments)
        norm = mean_gradients(self.state, sums, self.recipe.optim.max_grad_norm)
        lr = learning_rate(self.state.step, self.recipe.optim, _STEPS_PER_EPOCH)
        rate = self.recipe.statistics.rate_start
        finite = all_finite(sums, norm, moments)
        apply_update(self.state, moments, lr=lr, rate=rate, finite=finite)
        self.state.optimizer.zero_grad()
        clock.mark("optimizer")
        self.state.step += 1
        self._metrics_bytes = vector.numel() * vector.element_size()
        return torch.cat([step.losses.total_TB for step in steps], dim=1).mean(), norm

    def count_host_syncs(self) -> int | None:
        """How often the host waits for the device in a step; None where there is nothing to wait for."""
        if self.device.type != "cuda":
            return None
        torch.cuda.set_sync_debug_mode("warn")
        try:
            with warnings.catch_warnings(record=True) as found:
                warnings.simplefilter("always")
                self._clock = _Clock(self.device)
                self._step(self._clock)
        finally:
            torch.cuda.set_sync_debug_mode("default")
        return sum("synchronizing" in str(warning.message) for warning in found)

    def facts(self) -> StepFacts:
        trained = [p for p in self.state.student.parameters() if p.requires_grad]
        return StepFacts(
            teachers=self._weights,
            micro_batch=self._micro_batch,
            metrics_bytes=self._metrics_bytes,
            gradient_bytes=sum(p.numel() * p.element_size() for p in trained),
            peak_memory_bytes=peak_memory(self.device),
        )

    def close(self) -> None:
        """For settings that have something to end."""

    @property
    def _autocast(self) -> torch.dtype | None:
        return torch.bfloat16 if self.recipe.speed.precision == "bf16" else None

    def _timed_student(self, images: Tensor, draws: Tensor) -> dict[str, Tokens]:
        self._clock.mark("teachers")
        return self.state.student(images, draws)

    def _timed_project(self, blocks: Sequence[Tokens]) -> dict[str, Tokens]:
        self._clock.mark("student_forward")
        return self._project(blocks)


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


class _Clock:
    """Seconds between marks. On an accelerator its own clock is read, once at the end: nothing waits in between."""

    def __init__(self, device: torch.device):
        self._device = device
        self._parts: list[str] = []
        self._times: list[Any] = [self._now()]

    def mark(self, part: str) -> None:
        """What was done since the last mark was this part."""
        self._parts.append(part)
        self._times.append(self._now())

    def seconds(self) -> dict[str, float]:
        found = {part: 0.0 for part in PARTS}
        if self._device.type == "cpu":
            lengths = [now - before for before, now in itertools.pairwise(self._times)]
        else:
            torch.accelerator.synchronize(self._device)
            lengths = [before.elapsed_time(now) / 1000 for before, now in itertools.pairwise(self._times)]
        for part, length in zip(self._parts, lengths, strict=True):
            found[part] += length
        return found

    def _now(self) -> Any:
        if self._device.type == "cpu":
            return time.perf_counter()
        event = torch.Event(self._device, enable_timing=True)
        event.record()
        return event
