"""One update: gradients and sums from this process's images, one reduction over processes, then the optimiser and
the statistics, both or neither.
"""

import contextlib
import inspect
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel
from torch.profiler import record_function

from unic.core import distributed
from unic.core.to_device import to_device
from unic.data.photometric import augment
from unic.method.standardize import Moments
from unic.method.step import Step, distill_step
from unic.method.types import Batch
from unic.train.build_run import AUTOCAST, StepContext
from unic.train.checkpoint import TrainState
from unic.train.monitor.metric_sums import num_kept, pack, readable, step_sums, unpack
from unic.train.optim import cosine, learning_rate

# As in torch's clipping of gradients.
_EPS = 1e-6


@dataclass(frozen=True)
class StepOutcome:
    """What a step was, still on the device. sums: as in monitor/metric_sums.py, of all processes, as `flags` are."""

    sums: Float[Tensor, " S"]
    flags: Float[Tensor, " F"]
    grad_norm: Float[Tensor, ""]
    finite: Bool[Tensor, ""]
    lr: float
    rate: float
    """Of the moving averages of the teachers' statistics."""


def train_step(
    context: StepContext,
    state: TrainState,
    student: nn.Module,
    micro_batches: Sequence[Batch],
    flags: Float[Tensor, " F"],
) -> StepOutcome:
    """Moves weights, statistics and `state.step` by one step over this process's micro-batches.

    student: `state.student`, or what shares its gradients between processes.
    flags: numbers that are summed over processes on the way.
    """
    cfg = context.recipe
    sums, moments, flags = forward_backward(context, state, student, micro_batches, flags)
    with record_function("optimizer"):
        grad_norm = mean_gradients(state, sums, cfg.optim.max_grad_norm)
        lr = learning_rate(state.step, cfg.optim, context.steps_per_epoch)
        rate = cosine(state.step, context.num_steps, cfg.statistics.rate_start, cfg.statistics.rate_end)
        finite = all_finite(sums, grad_norm, moments)
        apply_update(state, moments, lr=lr, rate=rate, finite=finite)
        state.optimizer.zero_grad()
    state.step += 1
    return StepOutcome(sums, flags, grad_norm, finite, lr, rate)


def forward_backward(
    context: StepContext,
    state: TrainState,
    student: nn.Module,
    micro_batches: Sequence[Batch],
    flags: Float[Tensor, " F"],
) -> tuple[Float[Tensor, " S"], dict[str, Moments], Float[Tensor, " F"]]:
    """Leaves gradients of the summed loss in the parameters; gives sums, moments and flags of all processes.

    All that is not a gradient travels in one vector: 49 KB a step for UNIC-B.
    """
    steps: list[Step] = []
    for number, batch in enumerate(micro_batches):
        last = number == len(micro_batches) - 1
        with record_function("augmentation"):
            batch = photometric(context, batch)
        with _gradients_shared(student, last):
            with autocast(context):
                step = distill_step(
                    student,
                    context.teachers,
                    state.standardizers,
                    batch,
                    context.recipe.loss,
                    seed=context.recipe.seed,
                    num_drop_paths=state.student.num_draws,
                    token_loss=context.kernels.token_loss,
                )
            with record_function("backward"):
                step.loss_sum.backward()
        steps.append(step)
    parts = [to_device(flags, context.device), torch.stack([step_sums(step) for step in steps]).sum(0)]
    moments = total([step.moments for step in steps])
    (flags, sums), moments = unpack(distributed.all_reduce_(pack(parts, moments)), parts, moments)
    return sums, moments, flags


def mean_gradients(state: TrainState, sums: Float[Tensor, " S"], max_norm: float | None) -> Float[Tensor, ""]:
    """Has the optimiser turn gradients of the summed loss into those of its mean over kept (teacher, image) pairs, and
    shorten them to `max_norm`; gives their norm before that.
    """
    trained = [p for group in state.optimizer.param_groups for p in group["params"]]
    gradients = [p.grad for p in trained if p.grad is not None]
    # DistributedDataParallel has divided the sum over processes by their number.
    divisor = num_kept(sums) / distributed.world_size()
    norm = torch.nn.utils.get_total_norm(gradients) / divisor
    if max_norm is not None:
        divisor = divisor * ((norm + _EPS) / max_norm).clamp(min=1)
    # What a gradient scaler asks of a fused optimiser: it divides where it reads gradients anyway.
    state.optimizer.grad_scale = divisor  # pyright: ignore[reportAttributeAccessIssue]
    return norm


def all_finite(sums: Tensor, grad_norm: Tensor, moments: dict[str, Moments]) -> Bool[Tensor, ""]:
    """Whether all that a step found is finite, as the device knows it: the host does not wait for the answer."""
    tensors = [sums, grad_norm, *(part.sums for part in moments.values())]
    return torch.stack([torch.isfinite(tensor).all() for tensor in tensors]).all()


def apply_update(
    state: TrainState, moments: dict[str, Moments], *, lr: float, rate: float, finite: Bool[Tensor, ""]
) -> None:
    """Moves weights and statistics; where the step was not finite, both stay as they are to the last bit."""
    for group in state.optimizer.param_groups:
        group["lr"] = lr
    # What a gradient scaler tells a fused optimiser: to leave its step out, which it does on the device.
    state.optimizer.found_inf = (~finite).float()  # pyright: ignore[reportAttributeAccessIssue]
    state.optimizer.step()
    for name, standardizer in state.standardizers.items():
        known = Moments(moments[name].counts, moments[name].sums.where(finite, 0))
        standardizer.update(known, finite.double() * rate)


@torch.no_grad()
def measure_statistics(
    context: StepContext,
    state: TrainState,
    micro_batches: Sequence[Batch],
    rate: float,
    teachers: Sequence[str],
) -> None:
    """Moves these teachers' statistics alone: before the first step, so that it sees standardised features."""
    parts = []
    for batch in micro_batches:
        batch = photometric(context, batch)
        with autocast(context):
            features = context.teachers(batch)
        parts.append({name: state.standardizers[name].moments(features[name]) for name in teachers})
    moments = total(parts)
    _, moments = unpack(distributed.all_reduce_(pack([], moments)), [], moments)
    for name in teachers:
        state.standardizers[name].update(moments[name], rate)


def what_is_not_finite(sums: Float[Tensor, " S"], grad_norm: float, teachers: Sequence[str]) -> list[str]:
    """Names the losses that are infinite or undefined; else the gradient; else the statistics."""
    values = readable(sums, teachers)
    bad = [name for name, value in values.items() if name.startswith("loss/") and not math.isfinite(value)]
    if not bad:
        bad = ["statistics" if math.isfinite(grad_norm) else "gradient"]
    return bad


def photometric(context: StepContext, batch: Batch) -> Batch:
    """The batch on its device, in new colours; outside of autocast, because pixels are worth full precision."""
    recipe = context.recipe
    return augment(batch, recipe.seed, recipe.data.views, context.device, context.color_jitter)


def autocast(context: StepContext) -> torch.autocast:
    dtype = AUTOCAST[context.recipe.speed.precision]
    return torch.autocast(context.device.type, dtype, enabled=dtype is not None)


def parallel_student(context: StepContext, student: nn.Module) -> nn.Module:
    """The student whose gradients are shared between processes; itself when there is one process."""
    if distributed.world_size() == 1:
        return student
    all_used = context.recipe.loss.cls and context.recipe.loss.patches
    options: dict[str, Any] = {"gradient_as_bucket_view": True, "find_unused_parameters": not all_used}
    known = inspect.signature(DistributedDataParallel.__init__).parameters
    older = "broadcast_buffers"
    options["forward_sync_buffers" if "forward_sync_buffers" in known else older] = False
    return DistributedDataParallel(student, **options)


def total(parts: Sequence[dict[str, Moments]]) -> dict[str, Moments]:
    """Moments of several micro-batches as those of one batch."""
    return {name: Moments.sum([part[name] for part in parts]) for name in parts[0]}


def _gradients_shared(student: nn.Module, last: bool) -> contextlib.AbstractContextManager:
    if isinstance(student, DistributedDataParallel) and not last:
        return student.no_sync()
    return contextlib.nullcontext()
