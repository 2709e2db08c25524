"""Held-out images counted by hand, and metrics against their definitions."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from unic.core.errors import ConfigError, DataError
from unic.evals.linear.trainval_split import check_features, log_odds, split_trainval


def counts(labels, *, seed=22, compat=False):
    """For each class, images to learn from and images held out."""
    train, held_out = split_trainval(labels, seed=seed, compat=compat)
    assert sorted([*train.tolist(), *held_out.tolist()]) == list(range(len(labels)))
    return {
        int(c): (int((labels[train] == c).sum()), int((labels[held_out] == c).sum())) for c in labels.unique()
    }


def of_sizes(**sizes):
    return torch.cat([torch.full((n,), int(c[1:])) for c, n in sizes.items()])


def test_a_fifth_of_each_class_is_held_out_at_least_one_and_never_the_last():
    labels = of_sizes(c0=10, c1=14, c2=4, c4=2, c7=1, c9=5)
    assert counts(labels) == {0: (8, 2), 1: (12, 2), 2: (3, 1), 4: (1, 1), 7: (1, 0), 9: (4, 1)}


def test_compat_counts_as_the_reference_where_a_small_class_changes_the_share_of_those_after_it():
    labels = of_sizes(c0=10, c1=4, c2=10, c3=2, c4=9)
    # By hand: 0.2 until class 1 (floor(0.8) = 0 -> 1 image, share 1/4), then floor(10/4) = 2, floor(2/4) = 0
    # -> 1 image, share 1/2, then floor(9/2) = 4.
    assert counts(labels, compat=True) == {0: (8, 2), 1: (3, 1), 2: (8, 2), 3: (1, 1), 4: (5, 4)}


def test_compat_is_the_default_when_every_class_has_five_images():
    labels = of_sizes(c0=5, c1=12, c2=31)
    assert torch.equal(split_trainval(labels, seed=1)[1], split_trainval(labels, seed=1, compat=True)[1])


@settings(max_examples=50, deadline=None)
@given(st.lists(st.integers(2, 30), min_size=1, max_size=6), st.integers(0, 5))
def test_every_class_is_in_both_parts_and_the_split_is_a_function_of_the_seed(sizes, seed):
    labels = torch.cat([torch.full((n,), 3 * c) for c, n in enumerate(sizes)])
    labels = labels[torch.from_numpy(np.random.default_rng(seed).permutation(len(labels)))]
    for n, (train, held_out) in zip(sizes, counts(labels, seed=seed).values(), strict=True):
        assert held_out == max(1, math.floor(0.2 * n)) and train == n - held_out
    first, again = split_trainval(labels, seed=seed), split_trainval(labels, seed=seed)
    assert torch.equal(first[0], again[0]) and torch.equal(first[1], again[1])


def test_another_seed_holds_out_others_and_another_class_changes_nothing():
    labels = of_sizes(c0=50, c1=50)
    assert not torch.equal(split_trainval(labels, seed=1)[1], split_trainval(labels, seed=2)[1])
    first = split_trainval(of_sizes(c0=50, c1=20), seed=1)[1]
    assert torch.equal(first[first < 50], split_trainval(labels, seed=1)[1][:10])


def test_no_global_generator_is_touched():
    np_state, torch_state = np.random.get_state()[1].copy(), torch.get_rng_state()
    split_trainval(of_sizes(c0=9, c1=9), seed=0)
    assert (np.random.get_state()[1] == np_state).all()
    assert torch.equal(torch.get_rng_state(), torch_state)


def test_when_each_class_has_one_image_a_sentence_says_that_none_can_be_held_out():
    with pytest.raises(DataError, match="3 training images of 3 classes: none left to hold out"):
        split_trainval(torch.arange(3), seed=0)
    with pytest.raises(DataError, match="none left to learn from"):
        split_trainval(torch.arange(3), seed=0, compat=True)


def test_log_odds_is_the_mean_of_the_logits_of_the_accuracies():
    assert log_odds([50.0]) == 0.0
    assert log_odds([90.0, 20.0]) == pytest.approx((math.log(9) + math.log(1 / 4)) / 2)
    assert log_odds([100.0]) == pytest.approx(math.log(9999)) == pytest.approx(-log_odds([0.0]))
    for wrong in ([], [101.0], [float("nan")]):
        with pytest.raises(ConfigError, match="log-odds"):
            log_odds(wrong)


def test_features_that_are_not_finite_and_single_classes_are_refused():
    features, labels = torch.zeros(4, 2), torch.tensor([0, 1, 1, 3])
    check_features(features, labels, 4)
    with pytest.raises(DataError, match="1 of 4 rows of features are not finite, the first is row 2"):
        check_features(features.index_fill(0, torch.tensor(2), math.nan), labels, 4)
    with pytest.raises(DataError, match="1 class;"):
        check_features(features, torch.zeros(4, dtype=torch.int64), 4)
    with pytest.raises(DataError, match="labels from 0 to 3: expected 0 to 2"):
        check_features(features, labels, 3)
