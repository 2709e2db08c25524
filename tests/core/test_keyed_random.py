"""Draws without a generator: the same on any cut of a batch, uniform, and independent where they should be."""

import random
import zlib

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from unic.core.keyed_random import generator, seeded_torch, uniforms

# With fixed seeds a p-value is a number and not a chance. A broken hash gives 0; among the 80 of a sound one, a p-value
# below 1e-5 comes once in 1,250 choices of seeds.
LEAST_P = 1e-5


def draws(
    view: list[int], index: list[int], count: int = 1, seed: int = 0, purpose: str = "test"
) -> torch.Tensor:
    return uniforms(seed, purpose, torch.tensor(view), torch.tensor(index), count)


indices = st.integers(-(2**63), 2**63 - 1)


@settings(max_examples=50, deadline=None)
@given(st.lists(st.tuples(st.integers(-1, 2**40), indices), min_size=1, max_size=8), st.data())
def test_an_images_draws_depend_on_nothing_else_in_the_batch(
    pairs: list[tuple[int, int]], data: st.DataObject
):
    views, index = (list(column) for column in zip(*pairs, strict=True))
    whole = draws(views, index, count=5)
    assert whole.shape == (len(pairs), 5) and (whole >= 0).all() and (whole < 1).all()
    cut = data.draw(st.integers(0, len(pairs)))
    parts = [draws(views[s], index[s], count=5) for s in (slice(0, cut), slice(cut, None)) if index[s]]
    assert torch.equal(torch.cat(parts), whole)
    order = data.draw(st.permutations(range(len(pairs))))
    assert torch.equal(
        draws([views[i] for i in order], [index[i] for i in order], count=5), whole[list(order)]
    )


def test_more_draws_begin_with_the_same():
    assert torch.equal(draws([3], [7], count=4)[0], draws([3], [7], count=9)[0, :4])


@pytest.mark.parametrize("start", [0, 2**32 - 5_000, 2**33, -10_000], ids=str)
@pytest.mark.parametrize("view", [0, -1, 299])
@pytest.mark.parametrize("kind", ["over images", "over numbers", "over views"])
def test_draws_are_uniform(kind: str, view: int, start: int):
    """Kolmogorov-Smirnov over 10,000 neighbouring keys, and chi-square of neighbouring pairs on an 8 x 8 grid."""
    n = 10_000
    if kind == "over images":
        x = draws([view] * n, list(range(start, start + n)))[:, 0]
    elif kind == "over numbers":
        x = draws([view], [start], count=n)[0]
    else:
        x = draws([view + i for i in range(n)], [start] * n)[:, 0]
    values = x.double().numpy()
    assert stats.kstest(values, "uniform").pvalue > LEAST_P
    grid, *_ = np.histogram2d(values[:-1], values[1:], bins=8, range=[[0, 1], [0, 1]])
    assert stats.chisquare(grid.ravel()).pvalue > LEAST_P


@pytest.mark.parametrize(
    "other",
    [
        {"seed": 1},
        {"seed": -1},
        {"purpose": "text"},
        {"view": [1] * 10_000},
        {"view": [-1] * 10_000},
        {"index": list(range(2**32, 2**32 + 10_000))},
        {"index": list(range(1, 10_001))},
    ],
    ids=lambda other: next(iter(other)),
)
def test_seeds_purposes_views_and_images_are_independent(other: dict):
    one = {"view": [0] * 10_000, "index": list(range(10_000))}
    a, b = (draws(**keys)[:, 0].double().numpy() for keys in (one, one | other))
    # The correlation of 10,000 independent pairs has a standard deviation of 0.01.
    assert abs(np.corrcoef(a, b)[0, 1]) < 0.04
    assert stats.kstest((a - b) % 1, "uniform").pvalue > LEAST_P


def test_view_and_index_cannot_be_exchanged():
    assert not torch.equal(draws([3], [5], count=3), draws([5], [3], count=3))


def test_no_two_of_a_million_images_share_their_draws():
    n = 1_000_000
    x = uniforms(0, "test", torch.zeros(n, dtype=torch.int64), torch.arange(n), 3)
    keys = (x[:, :2].double() * 2**24).long()  # 48 bits; one pair in 10^6 images is expected once in 560 runs
    assert len(torch.unique(keys[:, 0] * 2**24 + keys[:, 1])) >= n - 1


def fmix32(h: int) -> int:
    """MurmurHash3's finaliser, from its published C source."""
    h = ((h ^ h >> 16) * 0x85EBCA6B) % 2**32
    h = ((h ^ h >> 13) * 0xC2B2AE35) % 2**32
    return h ^ h >> 16


@settings(max_examples=50, deadline=None)
@given(st.integers(0, 2**32), st.integers(-1, 2**40), indices, st.integers(1, 5))
def test_draws_are_the_chain_of_hashes_that_the_docstring_tells(
    seed: int, view: int, index: int, number: int
):
    """In Python's integers, which do not wrap."""
    state = int(np.random.default_rng([seed % 2**32, zlib.crc32(b"test")]).integers(0, 2**32))
    for key in (view, index % 2**32, index >> 32):
        state = fmix32(state ^ fmix32((key + 0x9E3779B9) % 2**32))
    expected = (fmix32(state ^ fmix32(number * 0x85EBCA6B % 2**32)) >> 8) / 2**24
    assert draws([view], [index], count=5, seed=seed)[0, number - 1].item() == expected


def test_the_numbers_stay_what_they_are():
    """Another value changes every run: it is another version of the method."""
    assert fmix32(1) == 0x514E28B7  # a published value
    drawn = draws([0, -1], [0, 2**33], count=2) * 2**24
    assert drawn.tolist() == [[500_560, 13_742_618], [2_160_858, 8_249_639]]


def test_generators_differ_by_seed_purpose_and_key_and_by_nothing_else():
    first = generator(1, "order", 2).random(4)
    assert np.array_equal(first, generator(1, "order", 2).random(4))
    for seed, purpose, key in ((2, "order", 2), (1, "root", 2), (1, "order", 3), (1, "order", 2**32 + 2)):
        assert not np.array_equal(first, generator(seed, purpose, key).random(4)), (seed, purpose, key)


def test_global_generators_are_neither_read_nor_moved():
    before = random.getstate(), np.random.get_state()[1].copy(), torch.get_rng_state()
    drawn = draws([0], [1], count=3)
    with seeded_torch(5, "weights"):
        inside = torch.rand(3)
    assert random.getstate() == before[0]
    assert np.array_equal(np.random.get_state()[1], before[1])
    assert torch.equal(torch.get_rng_state(), before[2])
    torch.rand(10)
    with seeded_torch(5, "weights"):
        assert torch.equal(torch.rand(3), inside)
    with seeded_torch(5, "other weights"):
        assert not torch.equal(torch.rand(3), inside)
    assert torch.equal(draws([0], [1], count=3), drawn)


def test_an_error_inside_puts_the_generator_back_too():
    before = torch.get_rng_state()
    with pytest.raises(ZeroDivisionError), seeded_torch(5, "weights"):
        raise ZeroDivisionError
    assert torch.equal(torch.get_rng_state(), before)
