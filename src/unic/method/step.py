"""One distillation step, from images to loss. This is the whole method; the rest of the package serves it.

`record_function` names the parts of a step for a profiler; it computes nothing.
Letters: B images, T teachers.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float
from torch import Tensor
from torch.profiler import record_function

from unic.core.keyed_random import uniforms
from unic.method.config import LossConfig
from unic.method.dropping import keep_teachers
from unic.method.losses import TokenLoss, TokenLosses, teacher_losses, token_loss
from unic.method.standardize import Moments, Standardizer
from unic.method.types import Batch, TargetSource, Tokens


@dataclass(frozen=True)
class Step:
    """What one (micro-)batch contributes. Sums, so that micro-batches and processes simply add up.

    loss_sum: sum of the kept losses; the loss of a step is the total of loss_sum over the total of kept_TB.
    moments: of the teachers' raw features; the loop moves the statistics with them once the step is known to be finite.
    """

    loss_sum: Float[Tensor, ""]
    kept_TB: Bool[Tensor, "T B"]
    losses: TokenLosses
    moments: dict[str, Moments]


def distill_step(
    student: Callable[..., dict[str, Tokens]],
    source: TargetSource,
    standardizers: Mapping[str, Standardizer],
    batch: Batch,
    cfg: LossConfig,
    *,
    seed: int,
    num_drop_paths: int,
    token_loss: TokenLoss = token_loss,
) -> Step:
    """Sources: UNIC, Sec. 3.2 (ladder), 3.3 (standardisation, losses), 3.4 (teacher dropping)."""
    with torch.no_grad(), record_function("teachers"):
        features = source(batch)  # {teacher: Tokens}
        targets = {name: standardizers[name](tokens) for name, tokens in features.items()}
        moments = {name: standardizers[name].moments(tokens) for name, tokens in features.items()}
    outputs = student(batch.images, uniforms(seed, "drop path", batch.view, batch.index, num_drop_paths))
    with record_function("ladder_and_loss"):
        losses = teacher_losses(outputs, targets, cfg, token_loss)
    draws_BT = uniforms(seed, "teacher dropping", batch.view, batch.index, len(features))
    kept_TB = keep_teachers(losses.total_TB.detach(), cfg.drop_prob, draws_BT.T)
    return Step((losses.total_TB * kept_TB).sum(), kept_TB, losses.detach(), moments)


@torch.no_grad()
def validation_losses(
    student: Callable[..., dict[str, Tokens]],
    source: TargetSource,
    standardizers: Mapping[str, Standardizer],
    batch: Batch,
    cfg: LossConfig,
) -> TokenLosses:
    """The same losses without dropping, and with statistics that are read and never moved."""
    targets = {name: standardizers[name](tokens) for name, tokens in source(batch).items()}
    return teacher_losses(student(batch.images), targets, cfg)
