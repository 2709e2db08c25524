"""A training step, plain and fast, in the settings that docs/LOG.md speaks of; adds one record to a JSON file.

    python benchmarks/step.py --threads 1 --only base8 ladder

base8, base32: the recipe unic_vitb16 with so many images a step. small: a ViT-Ti at 64 pixels, 64 images a step, from
two EfficientNet-Lite teachers. ladder: the projectors of unic_vitb16 alone, forward and backward, on 8 images (on an
accelerator 128).
Teachers whose weights are not here have random ones. Plain and fast take turns; figures are medians.
Other work on the machine disturbs the seconds of all settings, their ratio less.
"""

import json
import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import torch
import tyro
from rich.console import Console
from torch import Tensor

from unic.core.environment import environment
from unic.core.files import write_json
from unic.kernels.ladder_cpu import fast_ladder
from unic.method.tokens import Tokens, Widths
from unic.models.config import StudentConfig
from unic.models.ladder import Ladder
from unic.recipes import small_images, unic_vitb16
from unic.tools.bench.machine import commit, processor
from unic.tools.bench.measure import measure
from unic.tools.bench.options import BenchOptions
from unic.tools.bench.print_bench import print_measured
from unic.train.recipe import Recipe

Name = Literal["base8", "base32", "small", "ladder"]

# ViT-B/16 at 224 pixels.
DIM, NUM_BLOCKS, NUM_PATCHES = 768, 12, 196
TEACHERS = ("dino", "ibot", "deit3", "dbot")


@dataclass(frozen=True, kw_only=True)
class Options:
    only: tuple[Name, ...] = ("base8", "base32", "small", "ladder")
    steps: int = 5
    threads: int = 1
    device: str = "cpu"
    out: Path = Path("benchmarks/results/step.json")
    """A list of records, to which this run's is added."""


def main(options: Options) -> None:
    torch.set_num_threads(options.threads)
    device = torch.device(options.device)
    record: dict[str, Any] = {
        "commit": commit(),
        "processor": processor(device),
        "threads": options.threads,
        "environment": environment(),
    }
    recipes: dict[str, tuple[Recipe, int]] = {
        "base8": (unic_vitb16(), 8),
        "base32": (unic_vitb16(), 32),
        "small": (small_student(), 64),
    }
    for name in options.only:
        if name == "ladder":
            record[name] = ladder_alone(options.steps, device)
            print(json.dumps(record[name], indent=2))
            continue
        recipe, batch = recipes[name]
        choices = BenchOptions(batch=batch, steps=options.steps, threads=options.threads)
        record[name] = measure(recipe, choices, device=device)
        print_measured(record[name], Console())
        # What was measured is kept when a later setting is too large for the machine.
        add(record, options.out)
    add(record, options.out)


def small_student() -> Recipe:
    """ViT-Ti with patches of 8 pixels, on the small views and teachers of `small_images`, at 64 pixels."""
    base = small_images()
    student = StudentConfig(
        model=None, image_size=64, width=192, depth=12, heads=3, patch_size=8, drop_path=0.0
    )
    views = replace(base.data.views, image_size=64)
    return replace(base, student=student, data=replace(base.data, views=views))


def ladder_alone(repeats: int, device: torch.device) -> dict[str, Any]:
    """Seconds forward and backward in bf16, half of the images' gradients 0, as teacher dropping leaves them.

    In one process, which gives memory back to the system as usual, for plain and fast alike.
    """
    cfg, batch = unic_vitb16().ladder, 8 if device.type == "cpu" else 128
    ladder = Ladder({name: Widths(DIM, DIM) for name in TEACHERS}, dim=DIM, num_blocks=NUM_BLOCKS, cfg=cfg)
    ladder.to(device)
    generator = torch.Generator().manual_seed(0)

    def tokens() -> Tokens:
        cls = torch.randn(batch, DIM, generator=generator)
        patches = torch.randn(batch, NUM_PATCHES, DIM, generator=generator)
        return Tokens(*(part.to(device).requires_grad_() for part in (cls, patches)))

    blocks = [tokens() for _ in range(NUM_BLOCKS)]
    kept = (torch.rand(len(TEACHERS), batch, generator=generator) < 0.5).float().to(device)
    found = {}

    def run(project: Callable[[Sequence[Tokens]], dict[str, Tokens]]) -> None:
        with torch.autocast(device.type, torch.bfloat16):
            outputs = project(blocks)
            found["loss"] = loss = loss_of(outputs, kept)
        wait(device)
        found["middle"] = time.perf_counter()
        loss.backward()
        wait(device)

    forms = {"plain": ladder.forward, "fast": lambda blocks: fast_ladder(ladder, blocks)}
    seconds: dict[str, list[tuple[float, float]]] = {name: [] for name in forms}
    losses = {}
    for _ in range(repeats + 1):  # the first round warms up and does not count
        for name, form in forms.items():
            ladder.zero_grad()
            for block in blocks:
                block.cls.grad = block.patches.grad = None
            wait(device)
            start = time.perf_counter()
            run(form)
            seconds[name].append((found["middle"] - start, time.perf_counter() - found["middle"]))
            losses[name] = found["loss"].item()
    medians = {
        name: dict(
            zip(("forward", "backward"), map(statistics.median, zip(*pairs[1:], strict=True)), strict=True)
        )
        for name, pairs in seconds.items()
    }
    difference = abs(losses["plain"] - losses["fast"]) / abs(losses["plain"])
    assert difference < 1e-2, f"plain and fast disagree: {losses}"
    totals = {name: sum(parts.values()) for name, parts in medians.items()}
    return {
        "batch": batch,
        "seconds": medians,
        "ratio": totals["plain"] / totals["fast"],
        "loss_difference": difference,
    }


def loss_of(outputs: dict[str, Tokens], kept: Tensor) -> Tensor:
    """Something that depends on every output of the kept images."""
    parts = [
        out.cls.float().square().mean(1) + out.patches.float().square().mean((1, 2))
        for out in outputs.values()
    ]
    return (torch.stack(parts) * kept).sum()


def wait(device: torch.device) -> None:
    if device.type != "cpu":
        torch.accelerator.synchronize(device)


def add(record: dict[str, Any], file: Path) -> None:
    """Puts this run's record at the end, in place of its own unfinished one."""
    file.parent.mkdir(parents=True, exist_ok=True)
    records = json.loads(file.read_text()) if file.exists() else []
    records = [known for known in records if known["environment"]["time"] != record["environment"]["time"]]
    write_json(file, [*records, record])


if __name__ == "__main__":
    main(tyro.cli(Options))
