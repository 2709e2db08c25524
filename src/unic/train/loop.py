"""The training loop: batches in; a run folder with metrics, checkpoints and the released encoder out."""

import contextlib
import logging
import math
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch.utils.tensorboard import SummaryWriter

from unic.core import distributed
from unic.core.config import from_dict, to_dict
from unic.core.errors import DataError, NonFiniteError
from unic.core.files import TEMPORARY
from unic.core.run_folder import open_run
from unic.data.bad_images import BadImages
from unic.data.eval_loader import evaluation_batches
from unic.data.loader import training_batches
from unic.method.step import validation_losses
from unic.method.tokens import Batch
from unic.models.student import ENCODER_FILE, write_encoder
from unic.train.alarms import Alarms
from unic.train.checkpoint import TrainState, refuse_imported, save_checkpoint
from unic.train.fidelity import Fidelity
from unic.train.metrics import readable, validation_sums
from unic.train.optim import cosine, learning_rate
from unic.train.outcome import Outcome, Outcomes
from unic.train.progress import Progress
from unic.train.recipe import FREE_TO_CHANGE, Recipe
from unic.train.setup import Job, prepare, resume
from unic.train.signals import stop_requested
from unic.train.start import without_statistics
from unic.train.update import (
    all_finite,
    apply_update,
    autocast,
    forward_backward,
    mean_gradients,
    measure_statistics,
    parallel_student,
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
        job, state = distributed.run_on_all_ranks(lambda: prepare(recipe, run, device))
        resume(job, state)
        for file in ("metrics.jsonl", "alarms.jsonl"):
            distributed.run_on_rank0(partial(run.cut_after, file, state.step))
        bad = BadImages(folder / f"bad_images.{distributed.rank()}.jsonl")
        unknown = without_statistics(state.start, job.teacher_names)
        if state.step == 0 and unknown and recipe.statistics.kind == "ema":
            num_batches = min(recipe.statistics.warmup_batches, job.num_steps)
            for number, micro_batches in enumerate(_batches(job, bad, 0, num_batches)):
                measure_statistics(job, state, micro_batches, 1 / (number + 1), unknown)
        stopped = stack.enter_context(stop_requested())
        try:
            complete = _run_steps(job, state, bad, stopped)
        except DataError:
            if distributed.world_size() > 1:
                raise  # the others are inside a step, and cannot be asked to save
            _save(job, state, must=False)
            if not stopped():  # a scheduler's SIGTERM reaches the data processes too
                raise
            complete = False
        if complete:
            distributed.run_on_rank0(lambda: _release(job, state))
        return complete


def _complete(config: Any) -> dict[str, Any]:
    """A stored configuration with today's defaults for fields that it does not have."""
    return to_dict(from_dict(Recipe, config))


def _run_steps(job: Job, state: TrainState, bad: BadImages, stopped: Callable[[], bool]) -> bool:
    cfg, limit = job.recipe, job.recipe.data.max_bad * len(job.sources)
    student = parallel_student(job, state.student)
    last_save, num_skipped = time.monotonic(), 0
    fidelity, outcomes = Fidelity(job), Outcomes(job.device)
    with _Log(job, state.step, state.student.encoder.dim) as report:
        for micro_batches in _batches(job, bad, state.step, job.num_steps):
            flags = torch.tensor(
                [stopped(), _checkpoint_due(job, state, last_save), len(bad) > limit]
            ).float()
            sums, moments, flags = forward_backward(job, state, student, micro_batches, flags)
            grad_norm = mean_gradients(state, sums, cfg.optim.max_grad_norm)
            lr = learning_rate(state.step, cfg.optim, job.steps_per_epoch)
            rate = cosine(state.step, job.num_steps, cfg.statistics.rate_start, cfg.statistics.rate_end)
            finite = all_finite(sums, grad_norm, moments)
            apply_update(state, moments, lr=lr, rate=rate, finite=finite)
            state.window += sums.where(finite, 0)
            outcomes.send(state.step, finite, grad_norm, flags, sums)
            state.optimizer.zero_grad()
            state.step += 1

            stop = save = False
            for outcome in outcomes.arrived(all_of_them=state.step == job.num_steps):
                num_skipped = 0 if outcome.finite else num_skipped + 1
                if num_skipped:
                    _skip(job, outcome, num_skipped)
                asked_to_stop, asked_to_save, too_many_bad = (flag > 0 for flag in outcome.flags)
                stop, save = stop or asked_to_stop, save or asked_to_save
                if too_many_bad:
                    _save(job, state, must=False)
                    raise bad.error(len(job.sources), cfg.data.max_bad)

            record = {}
            if state.step % cfg.log.every == 0 or state.step == job.num_steps:
                record = {
                    "epoch": state.step / job.steps_per_epoch,
                    **readable(state.window, job.teacher_names),
                }
                record |= {"lr": lr, "rate": rate, "grad_norm": grad_norm.item()}
                state.window.zero_()
            if _validation_due(job, state):
                record |= _validate(job, state)
            if fidelity.due(state.step):
                measured = fidelity.measure(state)
                report.alarms(state.step, measured)
                record |= measured
            report.step(state.step, record)
            if stop or save or state.step == job.num_steps:
                _save(job, state, must=stop or state.step == job.num_steps)
                last_save = time.monotonic()
            if stop and state.step < job.num_steps:
                return False
    return True


class _Log:
    """metrics.jsonl, alarms.jsonl, TensorBoard and the progress a person sees; nothing but on the main process."""

    def __init__(self, job: Job, step: int, width: int):
        self._job = job
        self._progress = Progress(step, job.num_steps, job.recipe.optim.batch_size)
        self._writer: SummaryWriter | None = None
        self._alarms: Alarms | None = None
        if distributed.is_main():
            self._alarms = Alarms(job, width)
            self._writer = SummaryWriter(str(job.run.folder / "tensorboard"), purge_step=step + 1)

    def __enter__(self) -> "_Log":
        if self._writer:
            self._progress.start()
        return self

    def __exit__(self, *_: object) -> None:
        if self._writer:
            self._progress.stop()
            self._writer.close()

    def alarms(self, step: int, measured: dict[str, float]) -> None:
        """measured: what `Fidelity.measure` gave at this step."""
        if self._alarms:
            self._alarms.check(step, measured)

    def step(self, step: int, record: dict[str, float]) -> None:
        if self._writer is None:
            return
        rate = self._progress.step(step, record)
        if not record:
            return
        record = {**record, "images_per_second": rate}
        # JSON has no NaN: the mean of a window in which every step was skipped is null.
        values = {name: value if math.isfinite(value) else None for name, value in record.items()}
        self._job.run.append("metrics.jsonl", {"step": step, **values})
        for name, value in record.items():
            self._writer.add_scalar(name, value, step)


def _validate(job: Job, state: TrainState) -> dict[str, float]:
    """Mean losses on the validation images, shared by all processes, without dropping."""
    assert job.validation is not None, "called only where there are validation images"
    sums = torch.zeros_like(state.window)
    batches = evaluation_batches(
        job.validation.paths(),
        job.recipe.data.views.image_size,
        batch_size=job.micro_batch,
        rank=distributed.rank(),
        world=distributed.world_size(),
        workers=job.workers,
        on_bad="skip",
    )
    state.student.eval()
    for batch in batches:
        with autocast(job):
            sums += validation_sums(
                validation_losses(
                    state.student,
                    job.teachers,
                    state.standardizers,
                    batch.to(job.device),
                    job.recipe.loss,
                )
            )
    state.student.train()
    values = readable(distributed.all_reduce_(sums), job.teacher_names)
    return {f"val/{name}": value for name, value in values.items() if name.startswith("loss")}


def _batches(job: Job, bad: BadImages, start: int, stop: int) -> Iterator[list[Batch]]:
    return training_batches(
        job.sources,
        job.recipe.data,
        seed=job.recipe.seed,
        global_batch=job.recipe.optim.batch_size,
        start_step=start,
        num_steps=stop,
        bad=bad,
        rank=distributed.rank(),
        world=distributed.world_size(),
        micro_batch=job.micro_batch,
        workers=job.workers,
        pin_memory=job.device.type != "cpu",
    )


def _checkpoint_due(job: Job, state: TrainState, last_save: float) -> bool:
    """The main process decides, for all: clocks differ."""
    cfg = job.recipe.log
    if cfg.checkpoint_steps is not None:
        return (state.step + 1) % cfg.checkpoint_steps == 0
    return distributed.is_main() and time.monotonic() - last_save > 60 * cfg.checkpoint_minutes


def _validation_due(job: Job, state: TrainState) -> bool:
    if job.validation is None:
        return False
    every = max(1, round(job.recipe.log.validate_every * job.steps_per_epoch))
    return state.step % every == 0 or state.step == job.num_steps


def _skip(job: Job, outcome: Outcome, num_skipped: int) -> None:
    bad = what_is_not_finite(outcome.sums, outcome.grad_norm, job.teacher_names)
    what = f"step {outcome.step}: not finite: {', '.join(bad)}"
    if num_skipped < MAX_SKIPPED:
        log.warning("%s; the step is skipped", what)
        return
    raise NonFiniteError(
        f"{what}, for {num_skipped} steps in a row. These steps changed nothing; the checkpoints are as they were. Try "
        f"a lower optim.lr, speed.precision fp32, a statistics.std_floor of 0.05, or leave that teacher out"
    )


def _save(job: Job, state: TrainState, *, must: bool) -> None:
    """must: whether a failure to write ends the run; otherwise it goes on, and tries again when next due."""

    def save() -> None:
        try:
            save_checkpoint(job.run.checkpoints, state, identity=job.identity, keep=job.recipe.log.keep)
        except OSError as error:
            if must:
                raise
            log.warning(
                "the checkpoint of step %d could not be written: %s; the run goes on", state.step, error
            )

    distributed.run_on_rank0(save)


def _release(job: Job, state: TrainState) -> None:
    temporary = job.run.folder / f"{TEMPORARY}{ENCODER_FILE}"
    write_encoder(temporary, job.recipe.student, state.student.encoder)
    temporary.replace(job.run.folder / ENCODER_FILE)
