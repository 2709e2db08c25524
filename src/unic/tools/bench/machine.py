"""This machine: what it is, what its matrix products reach, how much memory a process has had."""

import resource
import subprocess
import sys
import time
from pathlib import Path

import torch
import torch.nn.functional as F

from unic.core.to_device import wait_for

_SIDE = 2048
_REPEATS = 5


def matmul_flops(dtype: torch.dtype, device: torch.device) -> float:
    """FLOP a second of a product of two 2048 x 2048 matrices: what a step can hope for. The best of several."""
    generator = torch.Generator().manual_seed(0)
    x, weight = (torch.rand(_SIDE, _SIDE, generator=generator).to(device, dtype) for _ in range(2))
    # A single product is shorter on an accelerator than its clock can tell.
    count = 1 if device.type == "cpu" else 50
    best = float("inf")
    for _ in range(1 + _REPEATS):
        wait_for(device)
        start = time.perf_counter()
        for _ in range(count):
            F.linear(x, weight)
        wait_for(device)
        best = min(best, (time.perf_counter() - start) / count)
    return 2 * _SIDE**3 / best


def processor(device: torch.device) -> str:
    """The name of what computes."""
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    facts = Path("/proc/cpuinfo")
    lines = facts.read_text().splitlines() if facts.exists() else []
    return next(
        (line.partition(":")[2].strip() for line in lines if line.startswith("model name")), "unknown"
    )


def commit() -> str | None:
    """The commit of this checkout, with a + when files differ from it; None for an installed package."""
    folder = Path(__file__).resolve().parents[4]
    if not (folder / ".git").exists():
        return None
    try:
        found = _git(folder, "rev-parse", "--short", "HEAD")
        changed = _git(folder, "status", "--porcelain", "--untracked-files=no")
    except (OSError, subprocess.CalledProcessError):
        return None
    return found + ("+" if changed else "")


def peak_memory(device: torch.device) -> int:
    """Bytes: of the accelerator as torch allocated it, else of this process."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    status = Path("/proc/self/status")
    if status.exists():  # ru_maxrss of a process can be that of the one that started it
        lines = status.read_text().splitlines()
        return next(int(line.split()[1]) * 1024 for line in lines if line.startswith("VmHWM"))
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024


def _git(folder: Path, *words: str) -> str:
    return subprocess.run(
        ["git", *words], cwd=folder, capture_output=True, text=True, check=True
    ).stdout.strip()
