"""One process or many: who am I, what do the others say.

Reads torchrun's environment, or Slurm's or Open MPI's where there is no torchrun. Every function works alone too.
"""

import contextlib
import datetime
import os
import re
from collections.abc import Callable, Iterator
from typing import TypeVar, cast

import torch
import torch.distributed as dist
from torch import Tensor

from unic.core.errors import ConfigError, UnicError

T = TypeVar("T")

# (rank, number of processes, rank on this machine) in torchrun's, Slurm's and Open MPI's words. Slurm's are those of a
# step: a batch script without srun has a number of tasks too, but is alone.
_LAUNCHERS = (
    ("RANK", "WORLD_SIZE", "LOCAL_RANK"),
    ("SLURM_PROCID", "SLURM_STEP_NUM_TASKS", "SLURM_LOCALID"),
    ("OMPI_COMM_WORLD_RANK", "OMPI_COMM_WORLD_SIZE", "OMPI_COMM_WORLD_LOCAL_RANK"),
)


def rank() -> int:
    return dist.get_rank() if dist.is_initialized() else 0


def world_size() -> int:
    return dist.get_world_size() if dist.is_initialized() else 1


def is_main() -> bool:
    return rank() == 0


@contextlib.contextmanager
def process_group(device: str = "auto", timeout_minutes: float = 10.0) -> Iterator[torch.device]:
    """Joins the other processes, if there are any, for the length of the block; gives this process's device.

    device: "auto" (the accelerator when there is one), or a torch device type such as "cpu".
    """
    position = _position()
    chosen = _device(device, position[2] if position else 0)
    if position is None or position[1] == 1 or dist.is_initialized():
        yield chosen
        return
    number, size, _ = position
    os.environ.setdefault("MASTER_ADDR", _first_host())
    os.environ.setdefault("MASTER_PORT", "29500")
    dist.init_process_group(
        dist.get_default_backend_for_device(chosen),
        rank=number,
        world_size=size,
        timeout=datetime.timedelta(minutes=timeout_minutes),
    )
    try:
        yield chosen
    finally:
        dist.destroy_process_group()


def all_reduce_(tensor: Tensor, op: dist.ReduceOp.RedOpType = dist.ReduceOp.SUM) -> Tensor:
    """Replaces `tensor` by its reduction over all processes, and returns it."""
    if dist.is_initialized():
        dist.all_reduce(tensor, op)
    return tensor


def run_on_rank0(function: Callable[[], T]) -> T:
    """Calls `function` on the main process only; every process gets its result, or its error.

    The result is sent as a pickle between the processes of one job, so it should be small.
    """
    if not dist.is_initialized():
        return function()
    outcome: list = [None, None]
    if is_main():
        try:
            outcome[0] = function()
        except (UnicError, OSError, ImportError) as error:
            outcome[1] = error
    dist.broadcast_object_list(outcome, src=0)
    if outcome[1] is not None:
        raise outcome[1]
    return outcome[0]


def run_on_all_ranks(function: Callable[[], T]) -> T:
    """Calls `function`, which must not talk to other processes, on every one of them.

    When it fails anywhere it fails everywhere, so that none waits for the others for ever.
    """
    if not dist.is_initialized():
        return function()
    result, error = None, None
    try:
        result = function()
    except (UnicError, OSError, ImportError) as failure:
        error = failure
    errors: list = [None] * world_size()
    dist.all_gather_object(errors, error)
    for found in errors:
        if found is not None:
            raise found
    return cast(T, result)


def _position() -> tuple[int, int, int] | None:
    for names in _LAUNCHERS:
        if all(name in os.environ for name in names):
            values = [os.environ[name] for name in names]
            if not all(value.isdecimal() for value in values):
                raise ConfigError(
                    f"{', '.join(names)} in the environment must be whole numbers, got {values}"
                )
            number, size, local = map(int, values)
            return number, size, local
    return None


def _first_host() -> str:
    nodes = os.environ.get("SLURM_STEP_NODELIST") or os.environ.get("SLURM_NODELIST")
    if not nodes:
        return "127.0.0.1"
    # "node[03-07,9],other" -> "node[03-07,9]" -> "node03"
    first = re.split(r",(?![^[]*\])", nodes)[0]
    return re.sub(r"\[(\w+)[^]]*\]", r"\1", first)


def _device(name: str, local_rank: int) -> torch.device:
    if name == "auto":
        accelerator = torch.accelerator.current_accelerator(check_available=True)
        name = accelerator.type if accelerator else "cpu"
    try:
        device = torch.device(name)
        if device.type != "cpu":
            device = torch.device(device.type, local_rank) if device.index is None else device
            torch.accelerator.set_device_index(device.index)
    except (RuntimeError, AssertionError) as error:
        raise ConfigError(
            f"device {name!r} cannot be used here; expected auto, cpu, or the name of an accelerator such as cuda"
        ) from error
    return device
