"""From a recipe to everything a run needs, checked in the order of what is cheapest to find wrong."""

import logging
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn

from unic.core import distributed
from unic.core.errors import ConfigError
from unic.core.files import remove_leftovers
from unic.core.run_folder import RunDir
from unic.data.sources import Sources, read_sources
from unic.data.worker_processes import auto_workers
from unic.kernels.choose import apply_fast_kernels, images_at_once
from unic.method.standardize import Standardizer
from unic.models.student import build_student
from unic.teachers import licence, short_name
from unic.teachers.live_teachers import LiveTeachers, load_teachers
from unic.train.checkpoint import TrainState, checkpoint_bytes, load_checkpoint
from unic.train.init_from import initialize, read_init_source, without_statistics
from unic.train.monitor.metric_sums import num_sums
from unic.train.optim import build_optimizer
from unic.train.recipe import Recipe

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class RunContext:
    """What stays the same while a run goes on."""

    recipe: Recipe
    run: RunDir
    device: torch.device
    sources: Sources
    validation: Sources | None
    teachers: LiveTeachers
    identity: dict[str, Any]
    """Hashes of the teachers and of the list of images; they go into every checkpoint."""
    steps_per_epoch: int
    num_steps: int
    workers: int
    micro_batch: int

    @property
    def teacher_names(self) -> list[str]:
        return list(self.teachers.dims)


def build_run(recipe: Recipe, run: RunDir, device: torch.device) -> tuple[RunContext, TrainState]:
    """What stays the same while a run goes on, and its state at step 0. Each process does this by itself."""
    sources = read_sources(recipe.data.root)
    validation = read_sources(recipe.data.val_root) if recipe.data.val_root else None
    steps_per_epoch = epoch_steps(recipe, len(sources))
    # What this run has saved goes first: `resume` will take that up, so the start need not even be there any more.
    saved = run.checkpoints.is_dir() and any(run.checkpoints.glob("step-*"))
    found = read_init_source(Path(recipe.start).expanduser()) if recipe.start and not saved else None

    encoders = load_teachers(recipe.teachers)
    widths = {encoder.name: encoder.widths for encoder in encoders}
    student = build_student(recipe.student, recipe.ladder, widths, seed=recipe.seed).to(device)
    teachers = LiveTeachers(encoders, student.encoder.grid).to(device)
    standardizers = {name: Standardizer(w, recipe.statistics).to(device) for name, w in widths.items()}
    optimizer = build_optimizer(student.named_parameters(), recipe.optim)
    window = torch.zeros(num_sums(len(widths)), device=device)
    state = TrainState(student, standardizers, optimizer, window)
    identity = {
        "teachers": teachers.fingerprints(),
        "licences": {short_name(reference): licence(reference) for reference in recipe.teachers},
        "data": sources.identity(),
        "num_images": len(sources),
    }
    if found is not None:
        state.start = initialize(found, student, standardizers)
        _check_statistics(recipe, without_statistics(state.start, list(widths)))
    # Last: it rounds the teachers' weights, and replaces modules of the student.
    if recipe.speed.kernels == "fast":
        autocast = torch.bfloat16 if recipe.speed.precision == "bf16" else None
        apply_fast_kernels(student, teachers, standardizers.values(), device, autocast)
        if device.type != "cpu":
            log.info(
                "the first step compiles for this device, which can take half a minute; later runs find it done"
            )
    context = RunContext(
        recipe=recipe,
        run=run,
        device=device,
        sources=sources,
        validation=validation,
        teachers=teachers,
        identity=identity,
        steps_per_epoch=steps_per_epoch,
        num_steps=recipe.optim.num_steps(steps_per_epoch),
        workers=auto_workers() if recipe.speed.workers is None else recipe.speed.workers,
        micro_batch=micro_batch(
            recipe, images_at_once(student, device) if recipe.speed.kernels == "fast" else None
        ),
    )
    log.info(
        "%d images, %d steps of %d (%.1f epochs); student %.1f M parameters, ladder %.1f M; teachers %s",
        len(sources), context.num_steps, recipe.optim.batch_size, recipe.optim.epochs,
        _millions(student.encoder), _millions(student.ladder), ", ".join(context.teacher_names),
    )  # fmt: skip
    return context, state


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
    if (
        not distributed.is_main()
    ):  # the main process has set aside what is damaged; the newest one left is its own
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
