"""SGD heads against a plain loop with torch's own optimiser."""

import itertools
import math

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from unic.core import keyed_random
from unic.evals.linear.sgd import fit_heads, rate_factor


@pytest.fixture
def problem():
    rng = torch.Generator().manual_seed(0)
    labels = torch.randint(0, 4, (50,), generator=rng)
    features = torch.randn(50, 6, generator=rng) + 3 * F.one_hot(labels, 6)
    # float64: rates of 30 and more make of another order of sums another classifier.
    return F.normalize(features, dim=1).double(), labels


def plain_loop(features, labels, num_classes, rate, decay, *, seed, epochs, batch_size):
    """UNIC's protocol, one head, the rate set after each epoch from the number of the epoch that ended."""
    with keyed_random.seeded_torch(seed, "evals.sgd"):
        model = nn.Linear(features.shape[1], num_classes).double()
    optimizer = torch.optim.SGD(model.parameters(), lr=rate, momentum=0.9, weight_decay=decay)
    for epoch in range(epochs):
        order = torch.from_numpy(keyed_random.generator(seed, "evals.sgd", epoch).permutation(len(features)))
        for rows in order.split(min(batch_size, len(features))):
            loss = F.cross_entropy(model(features[rows]), labels[rows])
            if not loss.isfinite():
                return model
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
        optimizer.param_groups[0]["lr"] = rate * 0.5 * (1 + math.cos(math.pi * epoch / epochs))
    return model


@pytest.mark.parametrize("batch_size", [16, 50, 1024])  # 50 rows: 16 leaves a last batch of 2
def test_heads_are_those_of_a_plain_loop(problem, batch_size):
    pairs = [(0.1, 1e-12), (3.0, 1e-4), (30.0, 1e-2)]
    options = {"seed": 5, "epochs": 12, "batch_size": batch_size}
    heads = fit_heads(*problem, 4, rates=[p[0] for p in pairs], decays=[p[1] for p in pairs], **options)
    for i, (rate, decay) in enumerate(pairs):
        model = plain_loop(*problem, 4, rate, decay, **options)
        torch.testing.assert_close(heads.weight[i], model.weight, rtol=1e-6, atol=1e-9)
        torch.testing.assert_close(heads.bias[i], model.bias, rtol=1e-6, atol=1e-9)
    assert heads.finite == (True, True, True)


def test_the_first_two_epochs_have_the_same_rate_and_the_last_one_is_not_zero():
    factors = [rate_factor(epoch) for epoch in range(100)]
    assert factors[:2] == [1.0, 1.0]
    assert factors[2] == pytest.approx(0.5 * (1 + math.cos(0.01 * math.pi)))
    assert factors[51] == pytest.approx(0.5)
    assert factors[99] == pytest.approx(0.5 * (1 + math.cos(0.98 * math.pi))) and factors[99] > 0
    assert all(a >= b for a, b in itertools.pairwise(factors))


def test_a_loss_that_is_not_finite_stops_its_head_and_no_other(problem):
    features, labels = problem[0].float(), problem[1]
    heads = fit_heads(features * 1e15, labels, 4, rates=[1e30, 1e-30], decays=[0.0, 0.0], seed=0, epochs=3)
    assert heads.finite == (False, True)
    alone = fit_heads(features * 1e15, labels, 4, rates=[1e-30], decays=[0.0], seed=0, epochs=3)
    torch.testing.assert_close(heads.weight[1], alone.weight[0])


def test_the_seed_decides_the_first_weights_and_the_order(problem):
    options = {"rates": [1.0], "decays": [0.0], "epochs": 2, "batch_size": 10}
    first, again, other = (fit_heads(*problem, 4, seed=seed, **options).weight for seed in (0, 0, 1))
    assert torch.equal(first, again) and not torch.allclose(first, other)


def test_it_learns_what_can_be_learned(problem):
    features, labels = problem
    heads = fit_heads(features, labels, 4, rates=[10.0], decays=[1e-6], seed=0)
    found = (features @ heads.weight[0].T + heads.bias[0]).argmax(1)
    assert (found == labels).float().mean() > 0.8
