"""Learning rates and momentum of dense heads, as functions of the step (mmcv 1.x, per iteration)."""

import math


def poly(step: int, *, steps: int, warmup: int, start: float = 1e-6) -> float:
    """Share of the base rate: falls linearly to 0; linear warm-up from `start` multiplies what has fallen already."""
    assert 0 <= step < steps, f"step {step} of {steps}"
    return (1 - step / steps) * _warming(step, warmup, start)


def cosine(step: int, *, steps: int, warmup: int, start: float = 1e-3, end: float = 1e-8) -> float:
    """Share of the base rate: half a cosine from 1 to `end`; linear warm-up from `start` multiplies it."""
    assert 0 <= step < steps, f"step {step} of {steps}"
    fallen = end + (1 - end) * (1 + math.cos(math.pi * step / steps)) / 2
    return fallen * _warming(step, warmup, start)


def one_cycle_momentum(
    step: int, *, steps: int, turn: float = 0.3, low: float = 0.85, high: float = 0.95
) -> float:
    """From `high` to `low` over the first share `turn` of the steps, and back over the rest, along cosines."""
    assert 0 <= step < steps, f"step {step} of {steps}"
    first = max(turn * steps - 1, 1)  # mmcv: the turn is at step turn * steps - 1, the end at the last step
    if step <= first:
        return _along_cosine(high, low, step / first)
    return _along_cosine(low, high, (step - first) / max(steps - 1 - first, 1))


def _warming(step: int, warmup: int, start: float) -> float:
    return 1.0 if step >= warmup else 1 - (1 - step / warmup) * (1 - start)


def _along_cosine(begin: float, end: float, share: float) -> float:
    return end + (begin - end) * (1 + math.cos(math.pi * share)) / 2
