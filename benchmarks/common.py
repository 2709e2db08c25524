"""What the benchmarks share: times of work, names of the machine and the commit, numbers as JSON."""

import json
import os
import platform
import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from unic.tools.bench.machine import commit


def machine() -> dict[str, Any]:
    """What numbers depend on, beside what is measured."""
    return {
        "machine": f"{platform.machine()} {os.cpu_count()} processors, {torch.get_num_threads()} threads",
        "torch": torch.__version__,
        "commit": commit() or "unknown",
    }


def timed(work: Callable[[], Any]) -> tuple[Any, float, float]:
    """What `work` gives, its wall-clock seconds and its processor seconds."""
    wall, processor = time.perf_counter(), time.process_time()
    result = work()
    return result, time.perf_counter() - wall, time.process_time() - processor


def medians(
    num_rounds: int, works: dict[str, Callable[[int], Any]], clock: Callable[[], float] = time.perf_counter
) -> dict[str, float]:
    """Seconds of each kind of work, in turns; it is given the number of the round, of which 0 only warms up."""
    seconds: dict[str, list[float]] = {name: [] for name in works}
    for number in range(num_rounds + 1):
        for name, work in works.items():
            start = clock()
            work(number)
            seconds[name].append(clock() - start)
    return {name: statistics.median(values[1:]) for name, values in seconds.items()}


def report(numbers: dict[str, Any], out: Path | None, name: str) -> None:
    """Prints the numbers, and writes them to out/name.json where there is such a folder, or can be."""
    print(json.dumps(numbers, indent=2), flush=True)
    if out:
        out.mkdir(parents=True, exist_ok=True)
        (out / f"{name}.json").write_text(json.dumps(numbers, indent=2) + "\n")
