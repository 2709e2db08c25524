"""Learning a head on the maps of a frozen encoder; a run that was killed goes on at its last note.

Letters: B crops, H W pixels.
"""

import logging
import math
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float, Shaped
from torch import Tensor, nn

from unic.core.errors import DataError
from unic.core.files import remove_folder
from unic.core.progress import with_progress
from unic.evals.artifact_cache import load_artifact, save_artifact
from unic.method.types import TokenMaps
from unic.models.weights import load_strictly

log = logging.getLogger(__name__)

SECONDS_BETWEEN_NOTES = 60.0

_OPTIMIZER = "optimizer."

Batch = tuple[list[TokenMaps], Shaped[Tensor, "B H W"]]


@dataclass(frozen=True, kw_only=True)
class Schedule:
    """Of AdamW, step by step.

    rate: (step) -> learning rate; momentum: (step) -> the first of the betas.
    clip: largest norm of the gradient; None: any.
    """

    steps: int
    rate: Callable[[int], float]
    momentum: Callable[[int], float] = lambda step: 0.9
    weight_decay: float
    clip: float | None = None


def train_head(
    head: nn.Module,
    batches: Callable[[int], Iterable[Batch]],
    loss: Callable[[list[TokenMaps], Shaped[Tensor, "B H W"], int], Float[Tensor, ""]],
    schedule: Schedule,
    *,
    what: str,
    notes: Path | None,
) -> None:
    """Changes `head` in place; it ends in eval mode.

    batches: (first step) -> the batches from there to the last step.
    loss: of a batch, at a step; calls the head.
    notes: folder for the state of an unfinished run; None keeps none.
    Raises DataError when the loss is not finite.
    """
    head.train()
    optimizer = torch.optim.AdamW(
        head.parameters(), lr=schedule.rate(0), betas=(0.9, 0.999), weight_decay=schedule.weight_decay
    )
    start = _take_up(head, optimizer, notes) if notes else 0
    if start:
        log.info("%s: goes on after %d of %d steps", what, start, schedule.steps)
    logged = saved = time.monotonic()
    steps = with_progress(enumerate(batches(start), start), schedule.steps, what, unit="steps", done=start)
    for step, (maps, truth) in steps:
        for group in optimizer.param_groups:
            group["lr"] = schedule.rate(step)
            group["betas"] = (schedule.momentum(step), 0.999)
        optimizer.zero_grad(set_to_none=True)
        of_batch = loss(maps, truth, step)
        of_batch.backward()
        if schedule.clip is not None:
            nn.utils.clip_grad_norm_(head.parameters(), schedule.clip)
        optimizer.step()
        now = time.monotonic()
        if now - logged >= SECONDS_BETWEEN_NOTES or step == schedule.steps - 1:
            logged = now
            value = float(of_batch.detach())
            if not math.isfinite(value):
                raise DataError(f"{what}: the loss is {value} at step {step}; try a smaller learning rate")
            log.info("%s: step %d  loss %.4f", what, step + 1, value)
        if notes and now - saved >= SECONDS_BETWEEN_NOTES:
            saved = now
            _note(head, optimizer, notes, step + 1)
    head.eval()
    if notes:
        for folder in _saved_states(notes):
            remove_folder(folder)


def _note(head: nn.Module, optimizer: torch.optim.Optimizer, notes: Path, step: int) -> None:
    tensors = {name: tensor.detach().cpu() for name, tensor in head.state_dict().items()}
    for number, state in optimizer.state_dict()["state"].items():
        tensors |= {f"{_OPTIMIZER}{number}.{name}": tensor.cpu() for name, tensor in state.items()}
    earlier = list(_saved_states(notes))
    save_artifact(notes / f"step-{step:08}", "the state of learning is", tensors, {"step": step})
    for folder in earlier:
        remove_folder(folder)


def _take_up(head: nn.Module, optimizer: torch.optim.Optimizer, notes: Path) -> int:
    """Puts back the newest state that is whole; gives the number of steps done."""
    for folder in sorted(_saved_states(notes), reverse=True):
        step = load_artifact(folder, "the state of learning is", partial(_put_back, head, optimizer))
        if step is not None:
            return step
    return 0


def _put_back(
    head: nn.Module, optimizer: torch.optim.Optimizer, tensors: dict[str, Tensor], facts: Any
) -> int:
    own = {name: tensor for name, tensor in tensors.items() if not name.startswith(_OPTIMIZER)}
    state: dict[int, dict[str, Tensor]] = {}
    for name, tensor in tensors.items():
        if name.startswith(_OPTIMIZER):
            number, _, key = name.removeprefix(_OPTIMIZER).partition(".")
            state.setdefault(int(number), {})[key] = tensor
    load_strictly(head, own, "the state of learning")
    optimizer.load_state_dict({**optimizer.state_dict(), "state": state})
    return int(facts["step"])


def _saved_states(notes: Path) -> Iterator[Path]:
    return notes.glob("step-*")
