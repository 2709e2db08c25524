"""The training loop: batches in; a run folder with metrics, checkpoints and the released encoder out."""

import contextlib
import logging
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import torch

from unic.core import distributed
from unic.core.dataclass_json import from_dict, to_dict
from unic.core.errors import DataError, NonFiniteError
from unic.core.files import TEMPORARY
from unic.core.run_folder import open_run
from unic.data.bad_images import BadImages
from unic.data.loader import StepPlan, training_batches
from unic.method.step import validation_losses
from unic.method.types import Batch
from unic.models.config import ENCODER_FILE
from unic.models.student import write_encoder
from unic.train.async_scalars import AsyncScalars, StepScalars
from unic.train.build_run import RunContext, build_run, resume
from unic.train.checkpoint import TrainState, refuse_imported, save_checkpoint
from unic.train.init_from import without_statistics
from unic.train.log import RunLog
from unic.train.monitor.fidelity import Fidelity
from unic.train.monitor.metric_sums import readable, validation_sums
from unic.train.recipe import FREE_TO_CHANGE, Recipe
from unic.train.signals import stop_requested
from unic.train.train_step import (
    autocast,
    measure_statistics,
    parallel_student,
    train_step,
    what_is_not_finite,
)

log = logging.getLogger(__name__)

# Steps in a row with an infinite or undefined loss or gradient before a run gives up; each one is skipped.
MAX_SKIPPED = 3


def train(recipe: Recipe, folder: Path, device: torch.device) -> bool:
    """Carries out `recipe` in `folder`, from where an earlier start of the same recipe was stopped.

    True when the run is complete; False when SIGTERM or SIGINT stopped it, after a checkpoint was written.
    Under several processes each calls this; results do not depend on their number beyond rounding.
    Raises ConfigError, DataError or WeightsError before the first step; DataError for too many unreadable images,
    NonFiniteError and OSError (disk full at the last checkpoint) after it.
    """
    distributed.run_on_rank0(lambda: refuse_imported(folder))
    with contextlib.ExitStack() as stack:
        run = distributed.run_on_rank0(
            lambda: stack.enter_context(
                open_run(folder, to_dict(recipe), free_to_change=FREE_TO_CHANGE, complete=_complete)
            )
        )
        context, state = distributed.run_on_all_ranks(lambda: build_run(recipe, run, device))
        resume(context, state)
        for file in ("metrics.jsonl", "alarms.jsonl"):
            distributed.run_on_rank0(partial(run.cut_after, file, state.step))
        bad = BadImages(folder / f"bad_images.{distributed.rank()}.jsonl")
        unknown = without_statistics(state.start, context.teacher_names)
        if state.step == 0 and unknown and recipe.statistics.kind == "ema":
            num_batches = min(recipe.statistics.warmup_batches, context.num_steps)
            for number, micro_batches in enumerate(_batches(context, bad, 0, num_batches)):
                measure_statistics(context, state, micro_batches, 1 / (number + 1), unknown)
        stopped = stack.enter_context(stop_requested())
        try:
            complete = _run_steps(context, state, bad, stopped)
        except DataError:
            if distributed.world_size() > 1:
                raise  # the others are inside a step, and cannot be asked to save
            _save(context, state, must=False)
            if not stopped():  # a scheduler's SIGTERM reaches the data processes too
                raise
            complete = False
        if complete:
            distributed.run_on_rank0(lambda: _release(context, state))
        return complete


def _complete(config: Any) -> dict[str, Any]:
    """A stored configuration with today's defaults for fields that it does not have."""
    return to_dict(from_dict(Recipe, config))


def _run_steps(context: RunContext, state: TrainState, bad: BadImages, stopped: Callable[[], bool]) -> bool:
    cfg, limit = context.recipe, context.recipe.data.max_bad * len(context.sources)
    student = parallel_student(context, state.student)
    last_save, num_skipped = time.monotonic(), 0
    fidelity, step_scalars = Fidelity(context), AsyncScalars(context.device)
    with RunLog(context, state.step, state.student.encoder.dim) as report:
        for micro_batches in _batches(context, bad, state.step, context.num_steps):
            flags = torch.tensor(
                [stopped(), _checkpoint_due(context, state, last_save), len(bad) > limit]
            ).float()
            outcome = train_step(context, state, student, micro_batches, flags)
            state.metric_sums += outcome.sums.where(outcome.finite, 0)
            step_scalars.send(state.step - 1, outcome.finite, outcome.grad_norm, outcome.flags, outcome.sums)

            stop = save = False
            for scalars in step_scalars.arrived(all_of_them=state.step == context.num_steps):
                num_skipped = 0 if scalars.finite else num_skipped + 1
                if num_skipped:
                    _skip(context, scalars, num_skipped)
                asked_to_stop, asked_to_save, too_many_bad = (flag > 0 for flag in scalars.flags)
                stop, save = stop or asked_to_stop, save or asked_to_save
                if too_many_bad:
                    _save(context, state, must=False)
                    raise bad.error(len(context.sources), cfg.data.max_bad)

            record = {}
            if state.step % cfg.log.every == 0 or state.step == context.num_steps:
                record = {
                    "epoch": state.step / context.steps_per_epoch,
                    **readable(state.metric_sums, context.teacher_names),
                }
                record |= {"lr": outcome.lr, "rate": outcome.rate, "grad_norm": outcome.grad_norm.item()}
                state.metric_sums.zero_()
            if _validation_due(context, state):
                record |= _validate(context, state)
            if fidelity.due(state.step):
                measured = fidelity.measure(state)
                report.alarms(state.step, measured)
                record |= measured
            report.step(state.step, record)
            if stop or save or state.step == context.num_steps:
                _save(context, state, must=stop or state.step == context.num_steps)
                last_save = time.monotonic()
            if stop and state.step < context.num_steps:
                return False
    return True


def _validate(context: RunContext, state: TrainState) -> dict[str, float]:
    """Mean losses on the validation images, shared by all processes, without dropping."""
    assert context.validation is not None, "called only where there are validation images"
    sums = torch.zeros_like(state.metric_sums)
    state.student.eval()
    for batch in context.plain_batches(context.validation.paths()):
        batch = batch.to(context.device)
        with autocast(context):
            losses = validation_losses(
                state.student, context.teachers, state.standardizers, batch, context.recipe.loss
            )
            sums += validation_sums(losses)
    state.student.train()
    values = readable(distributed.all_reduce_(sums), context.teacher_names)
    return {f"val/{name}": value for name, value in values.items() if name.startswith("loss")}


def _batches(context: RunContext, bad: BadImages, start: int, stop: int) -> Iterator[list[Batch]]:
    plan = StepPlan(
        sources=context.sources,
        cfg=context.recipe.data,
        seed=context.recipe.seed,
        global_batch=context.recipe.optim.batch_size,
        rank=distributed.rank(),
        world=distributed.world_size(),
        micro_batch=context.micro_batch,
    )
    return training_batches(
        plan, range(start, stop), bad=bad, workers=context.workers, pin_memory=context.device.type != "cpu"
    )


def _checkpoint_due(context: RunContext, state: TrainState, last_save: float) -> bool:
    """The main process decides, for all: clocks differ."""
    cfg = context.recipe.log
    if cfg.checkpoint_steps is not None:
        return (state.step + 1) % cfg.checkpoint_steps == 0
    return distributed.is_main() and time.monotonic() - last_save > 60 * cfg.checkpoint_minutes


def _validation_due(context: RunContext, state: TrainState) -> bool:
    if context.validation is None:
        return False
    every = max(1, round(context.recipe.log.validate_every * context.steps_per_epoch))
    return state.step % every == 0 or state.step == context.num_steps


def _skip(context: RunContext, scalars: StepScalars, num_skipped: int) -> None:
    bad = what_is_not_finite(scalars.sums, scalars.grad_norm, context.teacher_names)
    what = f"step {scalars.step}: not finite: {', '.join(bad)}"
    if num_skipped < MAX_SKIPPED:
        log.warning("%s; the step is skipped", what)
        return
    raise NonFiniteError(
        f"{what}, for {num_skipped} steps in a row. These steps changed nothing; the checkpoints are as they were. Try "
        f"a lower optim.lr, speed.precision fp32, a statistics.std_floor of 0.05, or leave that teacher out"
    )


def _save(context: RunContext, state: TrainState, *, must: bool) -> None:
    """must: whether a failure to write ends the run; otherwise it goes on, and tries again when next due."""

    def save() -> None:
        try:
            save_checkpoint(
                context.run.checkpoints, state, identity=context.identity, keep=context.recipe.log.keep
            )
        except OSError as error:
            if must:
                raise
            log.warning(
                "the checkpoint of step %d could not be written: %s; the run goes on", state.step, error
            )

    distributed.run_on_rank0(save)


def _release(context: RunContext, state: TrainState) -> None:
    temporary = context.run.folder / f"{TEMPORARY}{ENCODER_FILE}"
    write_encoder(temporary, context.recipe.student, state.student.encoder)
    temporary.replace(context.run.folder / ENCODER_FILE)
