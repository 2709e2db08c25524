"""Where an accelerator's time goes in a training step: parts by its own clock, then its kernels, the longest first.

    python benchmarks/kernels.py --batch 128 --kernels exact fast

"busy" is the sum of all kernels; what a step takes beyond it, the accelerator waited for the host. Teachers whose
weights are not here have random ones. Give it a machine without other work.
"""

import statistics
from dataclasses import dataclass, replace
from typing import Literal

import torch
import tyro
from torch.profiler import ProfilerActivity, profile

from unic.core.distributed import process_group
from unic.recipes import RECIPES
from unic.tools.bench.machine import commit, processor
from unic.tools.bench.timed_step import TimedStep


@dataclass(frozen=True, kw_only=True)
class Options:
    recipe: str = "unic_vitb16"
    batch: int = 128
    kernels: tuple[Literal["exact", "fast"], ...] = ("exact", "fast")
    turns: int = 3
    """Timed turns of eight steps."""
    rows: int = 40
    """Kernels that are listed."""


def main(options: Options) -> None:
    with process_group() as device:
        if device.type == "cpu":
            raise SystemExit("there is no accelerator here; `unic bench` measures steps on a processor")
        print(f"{processor(device)}, torch {torch.__version__}, commit {commit()}")
        for kernels in options.kernels:
            measure(kernels, device, options)


def measure(kernels: Literal["exact", "fast"], device: torch.device, options: Options) -> None:
    recipe = RECIPES[options.recipe]()
    speed = replace(recipe.speed, kernels=kernels, precision="bf16", micro_batch=None)
    recipe = replace(recipe, optim=replace(recipe.optim, batch_size=options.batch), speed=speed)
    step = TimedStep(recipe, device)
    first = step.step()
    step.step()
    turns = [step.step() for _ in range(options.turns)]
    total = statistics.median(turn.seconds for turn in turns)
    parts = {part: 1000 * share * total for part, share in step.shares().items()}
    before = step.state.step
    with profile(activities=[ProfilerActivity.CUDA, ProfilerActivity.CPU]) as recorded:
        step.step()
        torch.accelerator.synchronize(device)
    count = step.state.step - before
    found = [event for event in recorded.key_averages() if event.device_type.name != "CPU"]
    found = sorted(
        (event for event in found if "#" not in event.key), key=lambda e: -e.self_device_time_total
    )
    busy = sum(event.self_device_time_total for event in found) / 1000 / count
    print(
        f"\n{kernels}: first step {first.seconds:.1f} s, then {1000 * total:.1f} ms, "
        f"{options.batch / total:.0f} images/s"
    )
    print("  ".join(f"{part} {milliseconds:.1f}" for part, milliseconds in parts.items()))
    print(f"busy {busy:.1f} ms, {sum(event.count for event in found) / count:.0f} kernels a step")
    for event in found[: options.rows]:
        print(
            f"{event.self_device_time_total / 1000 / count:8.2f} ms {event.count / count:6.0f}  {event.key[:100]}"
        )


if __name__ == "__main__":
    main(tyro.cli(Options))
