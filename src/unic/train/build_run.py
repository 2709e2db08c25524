"""From a recipe to everything that a run needs."""

import logging
import shutil
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn

from unic.core import distributed
from unic.core.errors import ConfigError
from unic.core.files import remove_leftovers
from unic.core.run_folder import RunDir
from unic.data.eval_loader import evaluation_batches
from unic.data.photometric import ColorJitter, choose_color_jitter
from unic.data.sources import Sources, read_sources
from unic.data.worker_processes import auto_workers
from unic.kernels.choose import Kernels, choose_kernels
from unic.method.standardize import Standardizer
from unic.method.types import Batch
from unic.models.encoder import ImageEncoder
from unic.models.student import build_student
from unic.students.load_encoder import read_student
from unic.teachers import licence, short_name
from unic.teachers.live_teachers import LiveTeachers, check_names
from unic.teachers.load import load_teacher
from unic.train.checkpoint import TrainState, checkpoint_bytes, load_checkpoint
from unic.train.init_from import initialize, without_statistics
from unic.train.monitor.metric_sums import num_sums
from unic.train.optim import build_optimizer
from unic.train.recipe import Recipe

log = logging.getLogger(__name__)


AUTOCAST: dict[str, torch.dtype | None] = {"fp32": None, "bf16": torch.bfloat16}
"""What a step is computed in, by the value of speed.precision; None: in the precision of the weights."""


@dataclass(frozen=True)
class StepContext:
    """What a training step needs, beside what changes in it (`TrainState`)."""

    recipe: Recipe
    device: torch.device
    teachers: LiveTeachers
    kernels: Kernels
    color_jitter: ColorJitter
    micro_batch: int
    steps_per_epoch: int
    num_steps: int

    @property
    def teacher_names(self) -> list[str]:
        return list(self.teachers.dims)


@dataclass(frozen=True)
class RunContext(StepContext):
    """What stays the same while a run goes on."""

    run: RunDir
    sources: Sources
    validation: Sources | None
    identity: dict[str, Any]
    """Hashes of the teachers and of the list of images; they go into every checkpoint."""
    workers: int

    def plain_batches(self, paths: Sequence[str]) -> Iterator[Batch]:
        """This process's share of some images, without augmentation; unreadable ones are logged and left out."""
        return evaluation_batches(
            paths,
            self.recipe.data.views.image_size,
            batch_size=self.micro_batch,
            rank=distributed.rank(),
            world=distributed.world_size(),
            workers=self.workers,
            on_bad="skip",
        )


def build_run(recipe: Recipe, run: RunDir, device: torch.device) -> tuple[RunContext, TrainState]:
    """What stays the same while a run goes on, and its state at step 0. Each process does this by itself.

    What is cheapest to find wrong is checked first.
    """
    sources = read_sources(recipe.data.root)
    validation = read_sources(recipe.data.val_root) if recipe.data.val_root else None
    steps_per_epoch = epoch_steps(recipe, len(sources))
    # What this run has saved goes first: `resume` will take that up, so the start need not even be there any more.
    saved = run.checkpoints.is_dir() and any(run.checkpoints.glob("step-*"))
    source = read_student(Path(recipe.start).expanduser()) if recipe.start and not saved else None
    step, state = build_step(recipe, device, steps_per_epoch=steps_per_epoch)
    if source is not None:
        state.start = initialize(source, recipe.student, state.student, state.standardizers)
        _check_statistics(recipe, without_statistics(state.start, step.teacher_names))
    if step.kernels.compiles:
        log.info(
            "the first step compiles for this device, which can take half a minute; later runs find it done"
        )
    context = RunContext(
        **vars(step),
        run=run,
        sources=sources,
        validation=validation,
        identity={
            "teachers": step.teachers.content_hashes(),
            "licences": {short_name(reference): licence(reference) for reference in recipe.teachers},
            "data": sources.identity(),
            "num_images": len(sources),
        },
        workers=auto_workers() if recipe.speed.workers is None else recipe.speed.workers,
    )
    log.info(
        "%d images, %d steps of %d (%.1f epochs); student %.1f M parameters, ladder %.1f M; teachers %s",
        len(sources), context.num_steps, recipe.optim.batch_size, recipe.optim.epochs,
        _millions(state.student.encoder), _millions(state.student.ladder), ", ".join(context.teacher_names),
    )  # fmt: skip
    return context, state


def build_step(
    recipe: Recipe,
    device: torch.device,
    *,
    steps_per_epoch: int,
    load: Callable[[str], ImageEncoder] = load_teacher,
) -> tuple[StepContext, TrainState]:
    """Teachers, student, statistics and optimiser of a recipe, at step 0. load: from a reference to a teacher."""
    check_names(recipe.teachers)
    kernels = choose_kernels(recipe.speed.kernels, device, AUTOCAST[recipe.speed.precision])
    # One at a time, so that no more than one is in memory in the form it was loaded in.
    encoders = [kernels.frozen(load(reference).to(device)) for reference in recipe.teachers]
    widths = {encoder.name: encoder.widths for encoder in encoders}
    student = build_student(recipe.student, recipe.ladder, widths, seed=recipe.seed, kernels=kernels.student)
    student.to(device)
    state = TrainState(
        student=student,
        standardizers={
            name: Standardizer(width, recipe.statistics, kernels.statistics).to(device)
            for name, width in widths.items()
        },
        optimizer=build_optimizer(student.named_parameters(), recipe.optim),
        metric_sums=torch.zeros(num_sums(len(widths)), device=device),
    )
    step = StepContext(
        recipe=recipe,
        device=device,
        teachers=LiveTeachers(encoders, student.encoder.grid).to(device),
        kernels=kernels,
        color_jitter=choose_color_jitter(recipe.data.views, device, recipe.speed.kernels),
        micro_batch=micro_batch(recipe, kernels.images_at_once(student.encoder)),
        steps_per_epoch=steps_per_epoch,
        num_steps=recipe.optim.num_steps(steps_per_epoch),
    )
    return step, state


def epoch_steps(recipe: Recipe, num_images: int) -> int:
    """Steps an epoch. Raises ConfigError when there are too few images for one."""
    batch_size = recipe.optim.batch_size
    if batch_size > num_images:
        raise ConfigError(
            f"optim.batch_size {batch_size} is larger than the data set of {num_images} images; use a smaller batch"
        )
    return num_images // batch_size


def micro_batch(recipe: Recipe, best: int | None = None) -> int:
    """Most images this process handles at once. best: where the recipe does not say; None: all of its share."""
    share = -(-recipe.optim.batch_size // distributed.world_size())
    return min(recipe.speed.micro_batch or best or share, share)


def resume(context: RunContext, state: TrainState) -> None:
    """Brings `state` to the newest valid checkpoint, where there is one that belongs to this run."""
    distributed.run_on_rank0(lambda: _check_space(context.run, state))
    found = distributed.run_on_rank0(lambda: load_checkpoint(context.run.checkpoints, state, set_aside=True))
    if found is None:
        return
    if not distributed.is_main():
        # The main process has set aside what is damaged; the newest one left is its own.
        load_checkpoint(context.run.checkpoints, state, set_aside=False)
    _check_same(found, context.identity)
    log.info("resuming at step %d of %d", state.step, context.num_steps)


def _check_same(found: dict[str, Any], identity: dict[str, Any]) -> None:
    shas = identity["teachers"]
    changed = sorted(name for name in shas if found["teachers"].get(name) != shas[name])
    if changed:
        raise ConfigError(
            f"the weights or preprocessing of {', '.join(changed)} are not those this run was started with; "
            f"restore them, or start a new run with another --out"
        )
    if found["data"] != identity["data"]:
        log.warning(
            "the training images changed since this run was started (%d then, %d now)",
            found["num_images"],
            identity["num_images"],
        )


def _check_statistics(recipe: Recipe, unknown: list[str]) -> None:
    cfg = recipe.statistics
    if unknown and cfg.kind == "ema" and not cfg.warmup_batches and cfg.rate_start < 1:
        raise ConfigError(
            f"{recipe.start} has no statistics of {', '.join(unknown)}, and statistics.rate_start {cfg.rate_start} is "
            f"too low to find them from nothing; set statistics.warmup_batches (8 will do)"
        )


def _check_space(run: RunDir, state: TrainState) -> None:
    run.checkpoints.mkdir(exist_ok=True)
    remove_leftovers(run.checkpoints)
    needed = 3 * checkpoint_bytes(state.student)
    free = shutil.disk_usage(run.folder).free
    if free < needed:
        raise ConfigError(
            f"{run.folder}: {free / 1e9:.1f} GB free on this disk; two checkpoints and one being written "
            f"need {needed / 1e9:.1f} GB"
        )


def _millions(module: nn.Module) -> float:
    return sum(parameter.numel() for parameter in module.parameters()) / 1e6
