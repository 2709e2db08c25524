"""Sums of a step that travel between processes in one vector, and the numbers they become when they are logged.

Letters: T teachers.
"""

from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor

from unic.method.losses import TokenLosses
from unic.method.standardize import Moments
from unic.method.step import Step

# loss_sum and number of images, then kept images, CLS losses and patch losses for each teacher.
_NUM_TOTALS, _NUM_BY_TEACHER = 2, 3


def num_sums(num_teachers: int) -> int:
    """Length S of the vectors of this file."""
    return _NUM_TOTALS + _NUM_BY_TEACHER * num_teachers


def step_sums(step: Step) -> Float[Tensor, " S"]:
    """The sums behind every training metric, for one (micro-)batch."""
    return _sums(step.loss_sum.detach(), step.kept_TB, step.losses)


def validation_sums(losses: TokenLosses) -> Float[Tensor, " S"]:
    kept = torch.ones_like(losses.total_TB)
    return _sums(losses.total_TB.sum(), kept, losses)


def num_kept(sums: Float[Tensor, " S"]) -> Float[Tensor, ""]:
    """Kept (teacher, image) pairs: what the summed loss is divided by."""
    return _by_teacher(sums)[0].sum()


def readable(sums: Float[Tensor, " S"], teachers: Sequence[str]) -> dict[str, float]:
    """Mean losses and kept shares by name. The one place where metrics leave the device."""
    sums = sums.double().cpu()
    kept_T, cls_T, patches_T = (_by_teacher(sums) / sums[1]).tolist()
    record = {"loss": (sums[0] / num_kept(sums)).item()}
    for number, name in enumerate(teachers):
        record[f"loss/{name}/cls"] = cls_T[number]
        record[f"loss/{name}/patches"] = patches_T[number]
        record[f"kept/{name}"] = kept_T[number]
    return record


def pack(parts: Sequence[Tensor], moments: dict[str, Moments]) -> Float[Tensor, " V"]:
    """One vector of all that is summed over processes in a step: 49 KB for UNIC-B."""
    flat = [part for m in moments.values() for part in (m.counts, m.sums.flatten())]
    return torch.cat([*parts, *flat])


def unpack(
    vector: Float[Tensor, " V"], parts: Sequence[Tensor], moments: dict[str, Moments]
) -> tuple[list[Tensor], dict[str, Moments]]:
    """The inverse of `pack`, given values of the same shapes."""
    sizes = [part.numel() for part in parts]
    sizes += [size for m in moments.values() for size in (2, m.sums.numel())]
    pieces = list(vector.split(sizes))
    rest = iter(pieces[len(parts) :])
    return pieces[: len(parts)], {name: Moments(next(rest), next(rest).view(4, -1)) for name in moments}


def _sums(loss_sum: Tensor, kept_TB: Tensor, losses: TokenLosses) -> Tensor:
    totals = torch.stack([loss_sum, loss_sum.new_full((), kept_TB.shape[1])])
    return torch.cat([totals, kept_TB.float().sum(1), losses.cls_TB.sum(1), losses.patches_TB.sum(1)])


def _by_teacher(sums: Tensor) -> Float[Tensor, "3 T"]:
    return sums[_NUM_TOTALS:].view(_NUM_BY_TEACHER, -1)
