"""Statistics of teacher features against float64 NumPy, and what must never touch them."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from unic.core.errors import ConfigError
from unic.method.config import StatisticsConfig
from unic.method.standardize import Moments, Standardizer
from unic.method.types import Tokens, Widths

PUBLISHED = StatisticsConfig(warmup_batches=0, std_floor=0.0)


def tokens(
    rng: np.random.Generator, b: int, n: int, widths: Widths, mean: float = 0.0, std: float = 1.0
) -> Tokens:
    return Tokens(
        torch.tensor(rng.normal(mean, std, (b, widths.cls)), dtype=torch.float32),
        torch.tensor(rng.normal(mean, std, (b, n, widths.patches)), dtype=torch.float32),
    )


def state(standardizer: Standardizer) -> dict[str, torch.Tensor]:
    return {name: tensor.clone() for name, tensor in standardizer.state_dict().items()}


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 10_000), st.integers(2, 5), st.integers(1, 4), st.floats(0, 1), st.floats(-5, 5))
def test_three_updates_equal_the_published_recursion_in_float64(
    seed: int, b: int, n: int, rate: float, mean: float
):
    """new = old + rate (batch - old); the batch std is unbiased plus 1e-6, and the std is averaged."""
    rng = np.random.default_rng(seed)
    widths = Widths(3, 4)
    standardizer = Standardizer(widths, PUBLISHED)
    means = {"cls": np.zeros(3), "patch": np.zeros(4)}
    stds = {"cls": np.ones(3), "patch": np.ones(4)}
    errors = {"cls": np.zeros(3), "patch": np.zeros(4)}
    for _ in range(3):
        batch = tokens(rng, b, n, widths, mean, 2.0)
        standardizer.update(standardizer.moments(batch), rate)
        rows = {"cls": batch.cls.double().numpy(), "patch": batch.patches.double().flatten(0, 1).numpy()}
        for kind, x in rows.items():
            std = x.std(0, ddof=1) if len(x) > 1 else np.zeros(x.shape[1])
            # Squares of up to 20 values of float32 about the running mean, of which the batch's own mean is taken off:
            # little is left of their digits where a few values happen to lie together and far from that mean.
            of_variance = 20 * 2**-24 * ((x - means[kind]) ** 2).sum(0) / max(len(x) - 1, 1)
            of_std = np.minimum(np.sqrt(of_variance), of_variance / np.maximum(2 * std, 1e-12))
            errors[kind] += rate * (of_std - errors[kind])
            means[kind] += rate * (x.mean(0) - means[kind])
            stds[kind] += rate * (std + 1e-6 - stds[kind])
    for kind in rows:
        # float32 sums of up to 20 values of order 10, about the running mean
        np.testing.assert_allclose(getattr(standardizer, f"{kind}_mean"), means[kind], rtol=1e-5, atol=1e-5)
        off = np.abs(getattr(standardizer, f"{kind}_std").double().numpy() - stds[kind])
        assert (off <= errors[kind] + 1e-6 * (1 + stds[kind])).all()


def test_at_step_zero_features_pass_as_they_are_and_then_become_the_statistics():
    rng = np.random.default_rng(0)
    widths = Widths(5, 5)
    standardizer = Standardizer(widths, PUBLISHED)
    batch = tokens(rng, 16, 9, widths, 3.0, 2.0)
    torch.testing.assert_close(standardizer(batch).cls, batch.cls / (1 + 1e-6))
    standardizer.update(standardizer.moments(batch), 1.0)
    standardised = standardizer(batch)
    for x in (standardised.cls, standardised.patches.flatten(0, 1)):
        torch.testing.assert_close(x.mean(0), torch.zeros(5), atol=1e-5, rtol=0)
        torch.testing.assert_close(x.std(0), torch.ones(5), atol=1e-4, rtol=0)


@settings(max_examples=20, deadline=None)
@given(st.integers(0, 10_000), st.lists(st.integers(1, 6), min_size=1, max_size=4))
def test_moments_of_unequal_parts_add_up_to_those_of_the_whole(seed: int, sizes: list[int]):
    rng = np.random.default_rng(seed)
    widths = Widths(4, 6)
    parts = [tokens(rng, b, 3, widths, 1.0) for b in sizes]
    whole = Tokens(torch.cat([p.cls for p in parts]), torch.cat([p.patches for p in parts]))
    first, second = Standardizer(widths, PUBLISHED), Standardizer(widths, PUBLISHED)
    first.update(Moments.sum([first.moments(p) for p in parts]), 0.7)
    second.update(second.moments(whole), 0.7)
    for a, b in zip(first.state_dict().values(), second.state_dict().values(), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-6, atol=1e-6)


def test_a_large_mean_beside_a_small_std_costs_no_precision_once_the_mean_is_known():
    rng = np.random.default_rng(0)
    widths = Widths(8, 8)
    standardizer = Standardizer(widths, PUBLISHED)
    for _ in range(3):
        batch = tokens(rng, 512, 4, widths, 1000.0, 0.01)
        standardizer.update(standardizer.moments(batch), 1.0)
    expected = batch.cls.double().std(0)
    torch.testing.assert_close(standardizer.cls_std.double(), expected + 1e-6, rtol=1e-4, atol=0)


def test_reading_never_moves_the_statistics():
    standardizer = Standardizer(Widths(3, 3), PUBLISHED)
    before = state(standardizer)
    batch = Tokens(torch.full((1, 3), float("nan")), torch.full((1, 2, 3), float("inf")))
    standardizer(batch)
    standardizer.moments(batch)
    assert all(torch.equal(before[name], tensor) for name, tensor in standardizer.state_dict().items())


def test_one_image_and_constant_features_leave_the_statistics_finite():
    standardizer = Standardizer(Widths(3, 3), PUBLISHED)
    batch = Tokens(torch.ones(1, 3), torch.ones(1, 1, 3))
    standardizer.update(standardizer.moments(batch), 1.0)
    assert all(torch.isfinite(tensor).all() for tensor in standardizer.state_dict().values())
    assert torch.isfinite(standardizer(batch).cls).all()


def test_the_floor_bounds_dead_dimensions_and_leaves_living_ones_alone():
    cfg = StatisticsConfig(std_floor=0.05)
    standardizer = Standardizer(Widths(5, 5), cfg)
    standardizer.cls_std.copy_(torch.tensor([0.0, 1e-4, 1.0, 2.0, 3.0]))
    standardised = standardizer(Tokens(torch.ones(1, 5), torch.zeros(1, 1, 5))).cls[0]
    torch.testing.assert_close(standardised, 1 / torch.tensor([0.05, 0.05, 1.0, 2.0, 3.0]), rtol=1e-4, atol=0)


def test_without_statistics_features_pass_untouched():
    standardizer = Standardizer(Widths(3, 3), StatisticsConfig(kind="none"))
    before = state(standardizer)
    batch = tokens(np.random.default_rng(0), 4, 2, Widths(3, 3), 5.0)
    assert torch.equal(standardizer(batch).patches, batch.patches)
    standardizer.update(standardizer.moments(batch), 1.0)
    assert all(torch.equal(before[name], tensor) for name, tensor in standardizer.state_dict().items())


def test_rates_outside_zero_and_one_are_refused():
    with pytest.raises(ConfigError, match=r"\[0, 1\]"):
        StatisticsConfig(rate_start=1.5)
