"""The vector that travels between processes, and the numbers it becomes."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from unic.method.losses import TokenLosses
from unic.method.standardize import Moments
from unic.method.step import Step
from unic.train.monitor.metric_sums import (
    num_kept,
    num_sums,
    pack,
    readable,
    step_sums,
    unpack,
    validation_sums,
)

# T = 2 teachers, B = 4 images.
CLS = torch.tensor([[1.0, 2.0, 3.0, 4.0], [10.0, 20.0, 30.0, 40.0]])
PATCHES = CLS / 2
LOSSES = TokenLosses(CLS, PATCHES, (CLS + PATCHES) / 2)
KEPT = torch.tensor([[True, False, False, False], [True, True, True, False]])


def test_metrics_are_means_over_images_and_the_loss_is_one_over_kept_pairs():
    step = Step((LOSSES.total_TB * KEPT).sum(), KEPT, LOSSES, {})
    record = readable(step_sums(step), ["a", "b"])
    assert record == pytest.approx(
        {
            "loss": 0.75 * (1 + 10 + 20 + 30) / 4,
            "loss/a/cls": 2.5, "loss/a/patches": 1.25, "kept/a": 0.25,
            "loss/b/cls": 25.0, "loss/b/patches": 12.5, "kept/b": 0.75,
        }
    )  # fmt: skip
    assert num_kept(step_sums(step)) == 4


def test_validation_keeps_every_teacher():
    record = readable(validation_sums(LOSSES), ["a", "b"])
    assert record["kept/a"] == record["kept/b"] == 1
    assert record["loss"] == pytest.approx(0.75 * (10 + 100) / 8)


def test_sums_of_parts_are_those_of_the_whole():
    parts = [
        Step((LOSSES.total_TB[:, s] * KEPT[:, s]).sum(), KEPT[:, s],
             TokenLosses(CLS[:, s], PATCHES[:, s], LOSSES.total_TB[:, s]), {})
        for s in (slice(0, 1), slice(1, 4))
    ]  # fmt: skip
    whole = Step((LOSSES.total_TB * KEPT).sum(), KEPT, LOSSES, {})
    torch.testing.assert_close(sum(step_sums(part) for part in parts), step_sums(whole))


@settings(max_examples=30, deadline=None)
@given(
    st.lists(st.integers(1, 9), min_size=1, max_size=4),
    st.lists(st.integers(0, 5), max_size=3),
    st.integers(0, 99),
)
def test_unpack_is_the_inverse_of_pack(widths: list[int], sizes: list[int], seed: int):
    g = torch.Generator().manual_seed(seed)
    parts = [torch.randn(size, generator=g) for size in sizes]
    moments = {
        f"t{i}": Moments(torch.rand(2, generator=g), torch.randn(4, width, generator=g))
        for i, width in enumerate(widths)
    }
    vector = pack(parts, moments)
    assert vector.shape == (sum(sizes) + sum(2 + 4 * width for width in widths),)
    got, same = unpack(vector, parts, moments)
    assert all(torch.equal(a, b) for a, b in zip(got, parts, strict=True))
    assert list(same) == list(moments)
    for name, m in moments.items():
        assert torch.equal(same[name].counts, m.counts) and torch.equal(same[name].sums, m.sums)


def test_length_of_the_sums():
    assert step_sums(Step(torch.tensor(0.0), KEPT, LOSSES, {})).shape == (num_sums(2),)
