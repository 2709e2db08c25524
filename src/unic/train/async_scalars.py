"""What the host wants to know about a step, read without making the device wait.

On an accelerator the facts of a step are read while it is already busy with the next one; on a CPU at once.
"""

from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float
from torch import Tensor


@dataclass(frozen=True)
class StepScalars:
    """flags: as they were given to the step, summed over processes. sums: as in monitor/metric_sums.py."""

    step: int
    finite: bool
    grad_norm: float
    flags: list[float]
    sums: Float[Tensor, " S"]


class AsyncScalars:
    """AsyncScalars of steps on their way to the host, the oldest first."""

    def __init__(self, device: torch.device):
        self._device = device
        self._lag = 0 if device.type == "cpu" else 1
        self._coming: deque[tuple[int, int, Tensor, torch.Event | None]] = deque()

    def send(
        self,
        step: int,
        finite: Bool[Tensor, ""],
        grad_norm: Float[Tensor, ""],
        flags: Float[Tensor, " F"],
        sums: Float[Tensor, " S"],
    ) -> None:
        """Starts the copy of what is known of a step."""
        facts = torch.cat([finite[None].float(), grad_norm[None].float(), flags, sums])
        if self._device.type == "cpu":
            self._coming.append((step, len(flags), facts, None))
            return
        facts, arrived = facts.to("cpu", non_blocking=True), torch.Event(self._device)
        arrived.record()
        self._coming.append((step, len(flags), facts, arrived))

    def arrived(self, *, all_of_them: bool) -> Iterator[StepScalars]:
        """Those that can be read without waiting for the step just sent, or all of them."""
        while len(self._coming) > (0 if all_of_them else self._lag):
            step, num_flags, facts, arrived = self._coming.popleft()
            if arrived is not None:
                arrived.synchronize()
            finite, grad_norm, *flags = facts[: 2 + num_flags].tolist()
            yield StepScalars(step, bool(finite), grad_norm, flags, facts[2 + num_flags :])
