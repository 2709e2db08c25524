"""Measures of features against brute force in NumPy and scikit-learn, and at features of which they are known."""

import math

import numpy as np
import pytest
import torch
from sklearn.metrics import r2_score
from sklearn.neighbors import NearestNeighbors

from unic.method.representation_metrics import (
    dead_share,
    effective_rank,
    explained_variance,
    linear_cka,
    neighbour_agreement,
    outlier_share,
)

SHAPES = [(30, 8), (9, 20), (16, 16)]


def draw(seed: int, *shape: int) -> torch.Tensor:
    return torch.tensor(np.random.default_rng(seed).normal(size=shape), dtype=torch.float32)


@pytest.mark.parametrize(("n", "d"), SHAPES)
def test_effective_rank_is_the_exponential_of_the_entropy_of_singular_values(n: int, d: int):
    x = draw(0, n, d) * torch.arange(1.0, d + 1)
    array = x.double().numpy()
    singular = np.linalg.svd(array - array.mean(0), compute_uv=False)
    shares = [s / singular.sum() for s in singular if s > 1e-9]
    assert effective_rank(x) == pytest.approx(math.exp(-sum(p * math.log(p) for p in shares)), rel=1e-6)


def test_effective_rank_is_one_on_a_line_and_the_number_of_equal_orthogonal_directions():
    line = torch.arange(20.0)[:, None] * draw(1, 1, 7) + 3
    assert effective_rank(line) == pytest.approx(1, abs=1e-3)
    axes = torch.cat([torch.eye(5), -torch.eye(5)]) @ torch.linalg.qr(draw(2, 12, 12)).Q[:5] + 2
    assert effective_rank(axes) == pytest.approx(5, abs=1e-3)


def test_constant_features_have_rank_zero_whatever_their_value():
    for value in (0.0, 3.3, 1e4):
        assert effective_rank(torch.full((50, 6), value)) == 0
        assert dead_share(torch.full((50, 6), value)) == 1
    assert effective_rank(draw(0, 1, 6)) == 0


def test_dead_dimensions_are_those_below_the_floor_of_the_median_std():
    x = draw(3, 200, 10)
    x[:, 0] = 7.7  # constant
    x[:, 1] = 1000 + 0.02 * x[:, 1]  # far below the median of about 1
    x[:, 2] *= 0.2
    assert dead_share(x) == pytest.approx(0.2)
    assert dead_share(x, floor=0.3) == pytest.approx(0.3)
    assert dead_share(x, floor=0.0) == pytest.approx(0.1)


def test_outliers_are_as_many_as_were_made_longer():
    tokens = torch.nn.functional.normalize(draw(4, 5, 20, 8), dim=-1) * (10 + draw(5, 5, 20, 1).clamp(-2, 2))
    assert outlier_share(tokens) == 0
    tokens[:3, 7] *= 5
    assert outlier_share(tokens) == pytest.approx(3 / 100)


def test_a_wide_spread_of_norms_is_no_outlier():
    # The longest is 1.9 times the median.
    uniform = torch.linspace(1, 21, 100).reshape(4, 25, 1).expand(-1, -1, 3)
    assert outlier_share(uniform) == 0
    norms = uniform[..., 0].double().numpy().ravel() * math.sqrt(3)
    median = np.sort(norms)[49]
    sigma = 1.4826 * np.sort(abs(norms - median))[49]
    assert not ((norms > median + 4 * sigma) & (norms > 2 * median)).any()


@pytest.mark.parametrize(("n", "d"), SHAPES)
def test_cka_is_the_normalised_inner_product_of_centred_gram_matrices(n: int, d: int):
    x, y = draw(6, n, d) + 1, draw(7, n, d + 3) - 2
    y[:, :d] += x
    h = np.eye(n) - np.ones((n, n)) / n
    of_x, of_y = (h @ a.double().numpy() @ a.double().numpy().T @ h for a in (x, y))
    expected = np.trace(of_x @ of_y) / math.sqrt(np.trace(of_x @ of_x) * np.trace(of_y @ of_y))
    assert linear_cka(x, y) == pytest.approx(expected, rel=1e-6)
    assert linear_cka(y, x) == pytest.approx(expected, rel=1e-6)


def test_cka_and_neighbours_see_through_rotation_and_scale():
    x = draw(8, 40, 12)
    turned = 3 * x @ torch.linalg.qr(draw(9, 12, 12)).Q
    assert linear_cka(x, turned + 5) == pytest.approx(1, abs=1e-6)
    assert neighbour_agreement(x, turned) == 1
    assert linear_cka(x, torch.full((40, 2), 3.0)) == 0


@pytest.mark.parametrize("k", [1, 5, 100])
def test_agreement_of_neighbours_is_that_of_scikit_learn(k: int):
    x, y = draw(10, 50, 6), draw(11, 50, 9)
    y[:, :6] += x
    few = min(k, 49)
    graphs = []
    for features in (x, y):
        # without points to ask for, a point is not its own neighbour
        search = NearestNeighbors(n_neighbors=few, metric="cosine").fit(features.double().numpy())
        graphs.append(search.kneighbors(return_distance=False))
    expected = np.mean([len(set(a) & set(b)) / few for a, b in zip(*graphs, strict=True)])
    assert neighbour_agreement(x, y, k) == pytest.approx(expected)


def test_explained_variance_is_r2_weighted_by_variance():
    target = draw(12, 60, 5) * torch.arange(1.0, 6)
    for noise in (0.1, 3.0):
        prediction = target + noise * draw(13, 60, 5)
        expected = r2_score(target.numpy(), prediction.numpy(), multioutput="variance_weighted")
        assert explained_variance(prediction, target) == pytest.approx(expected, rel=1e-4)
    assert explained_variance(target.mean(0).expand(60, 5), target) == pytest.approx(0, abs=1e-6)
    assert explained_variance(target, target) == 1


def test_a_constant_target_is_explained_when_it_is_met():
    target = torch.full((4, 3), 2.0)
    assert explained_variance(target, target) == 1
    assert explained_variance(target + 1, target) == 0
