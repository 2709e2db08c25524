"""The one place where fast forms take the place of the plain ones."""

from functools import partial

import torch
from torch import nn

from unic.fast.attention import unfuse_attention
from unic.fast.ladder import fast_ladder
from unic.fast.teachers import pack_weights, round_weights
from unic.models.student import Student

# Tokens of this many features in all: what one layer hands to the next then stays in the caches of a processor.
_CACHED_FEATURES = 2_400_000


def hasten(student: Student, teachers: nn.Module, device: torch.device, autocast: torch.dtype | None) -> None:
    """Makes a training step faster and leaves what it computes, but for rounding.

    autocast: the precision that the step will run in; None: that of the weights.
    """
    student.project = partial(fast_ladder, student.ladder)
    if autocast is not None:
        round_weights(teachers, autocast)
    if device.type == "cpu":
        pack_weights(teachers)
        unfuse_attention(student.encoder)
        unfuse_attention(teachers)


def images_at_once(student: Student, device: torch.device) -> int | None:
    """How many images a micro-batch should have for the student's sake; None: as many as there are."""
    if device.type != "cpu":
        return None
    rows, columns = student.encoder.grid
    return max(1, round(_CACHED_FEATURES / ((rows * columns + 1) * student.encoder.dim)))
