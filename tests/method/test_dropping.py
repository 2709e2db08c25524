"""Teacher dropping: the hardest stays, the others are kept at the promised rate."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from unic.core.keyed_random import uniforms
from unic.method.dropping import keep_teachers


def reference_keep(losses: np.ndarray, drop_prob: float, draws: np.ndarray) -> np.ndarray:
    """One image after the other, as the paper tells it (UNIC, Sec. 3.4)."""
    kept = np.zeros(losses.shape, dtype=bool)
    for image in range(losses.shape[1]):
        hardest = int(np.argmax(losses[:, image]))
        for teacher in range(losses.shape[0]):
            kept[teacher, image] = teacher == hardest or draws[teacher, image] >= drop_prob
    return kept


@settings(max_examples=50, deadline=None)
@given(st.integers(0, 10_000), st.integers(1, 6), st.integers(1, 9), st.floats(0, 0.99))
def test_vectorised_dropping_equals_the_loop(seed: int, t: int, b: int, drop_prob: float):
    rng = np.random.default_rng(seed)
    losses, draws = rng.random((t, b), dtype=np.float32), rng.random((t, b), dtype=np.float32)
    kept = keep_teachers(torch.from_numpy(losses), drop_prob, torch.from_numpy(draws))
    assert (kept.numpy() == reference_keep(losses, np.float32(drop_prob), draws)).all()


def test_hardest_teacher_is_kept_even_when_all_others_are_dropped():
    losses = torch.tensor([[0.1, 0.9, 0.2], [0.5, 0.1, 0.3]])
    kept = keep_teachers(losses, 0.999, torch.zeros(2, 3))
    assert kept.tolist() == [[False, True, False], [True, False, True]]


def test_no_teacher_is_dropped_at_probability_zero():
    assert keep_teachers(torch.rand(4, 5), 0.0, torch.zeros(4, 5)).all()


@pytest.mark.parametrize("drop_prob", [0.25, 0.5, 0.8])
def test_the_other_teachers_are_kept_at_the_promised_rate(drop_prob: float):
    num_images = 100_000
    index = torch.arange(num_images)
    draws = uniforms(7, "teacher dropping", torch.zeros_like(index), index, 4).T
    losses = torch.tensor([0.4, 0.1, 0.2, 0.3])[:, None].expand(4, num_images)
    kept = keep_teachers(losses, drop_prob, draws).double().mean(1)
    assert kept[0] == 1
    sigma = (drop_prob * (1 - drop_prob) / num_images) ** 0.5
    assert (kept[1:] - (1 - drop_prob)).abs().max() < 4 * sigma


def test_every_image_keeps_at_least_one_teacher_even_with_equal_losses():
    assert keep_teachers(torch.ones(3, 50), 0.9, torch.zeros(3, 50)).any(0).all()
