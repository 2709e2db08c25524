"""Components and rotations, against scikit-learn and against rotations that are known."""

import numpy as np
import torch
from sklearn.decomposition import PCA
from tiny import random_maps

from unic.tools.visualize.principal_components import aligned, bounds, colours, principal_components


def features(rows: int = 200, width: int = 12, seed: int = 0) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(rows, width, generator=generator) * torch.arange(width, 0, -1) + 3.0


def rotation(width: int, seed: int = 1) -> torch.Tensor:
    return torch.linalg.qr(
        torch.randn(width, width, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))
    )[0]


def test_components_are_those_of_scikit_learn_up_to_sign():
    x = features()
    found = principal_components(x, 3)
    assert found is not None
    theirs = PCA(3, svd_solver="full").fit(x.double().numpy())
    np.testing.assert_allclose(found.directions.T.abs(), np.abs(theirs.components_), atol=1e-10)
    np.testing.assert_allclose(found.spread**2, theirs.explained_variance_, rtol=1e-10)
    scores = theirs.transform(x.double().numpy()) / np.sqrt(theirs.explained_variance_)
    np.testing.assert_allclose(found.scores(x).abs(), np.abs(scores), atol=1e-9)


def test_the_largest_entry_of_every_direction_is_positive_whatever_the_sign_of_the_features():
    for x in (features(), -features()):
        found = principal_components(x, 5)
        assert found is not None
        largest = found.directions.abs().argmax(0)
        assert (found.directions[largest, torch.arange(5)] > 0).all()


def test_there_are_as_many_components_as_directions():
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(50, 2, generator=generator) @ torch.randn(2, 9, generator=generator) + 100.0
    found = principal_components(x, 3)
    assert found is not None and found.directions.shape == (9, 2)


def test_constant_features_have_no_component_also_when_rounding_stirs_them():
    constant = torch.full((40, 6), 1234.5)
    assert principal_components(constant, 3) is None
    assert principal_components(torch.zeros(40, 6), 3) is None
    noise = 1e-4 * torch.randn(40, 6, generator=torch.Generator().manual_seed(0))  # of float32 at that size
    assert principal_components(constant + noise, 3) is None


def test_a_known_rotation_is_undone():
    wanted = torch.randn(100, 6, dtype=torch.float64, generator=torch.Generator().manual_seed(2))
    turn = rotation(6)
    found, near = aligned(wanted @ turn, wanted)
    torch.testing.assert_close(found, turn.T)
    assert abs(near - 1) < 1e-12


def test_three_columns_are_found_among_more_dimensions():
    scores = torch.randn(400, 6, dtype=torch.float64, generator=torch.Generator().manual_seed(2))
    white = scores - scores.mean(0)
    white = white @ torch.linalg.inv(torch.linalg.cholesky(white.T @ white)).T  # orthonormal columns
    turn = rotation(6)
    found, near = aligned(white @ turn, white[:, :3])
    torch.testing.assert_close(found, turn.T[:, :3])
    torch.testing.assert_close(found.T @ found, torch.eye(3, dtype=torch.float64))
    assert abs(near - 1) < 1e-9


def test_unlike_scores_correlate_little():
    a, b = (
        torch.randn(5000, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(s)) for s in (1, 2)
    )
    assert aligned(a, b)[1] < 0.05


def test_bounds_are_percentiles_and_outliers_become_full_colours():
    scores = torch.linspace(0, 100, 101, dtype=torch.float64)[:, None].repeat(1, 3)
    low, high = bounds(scores)
    torch.testing.assert_close(low, torch.full((3,), 1.0, dtype=torch.float64))
    torch.testing.assert_close(high, torch.full((3,), 99.0, dtype=torch.float64))
    found = colours(scores, low, high)
    assert found[0].tolist() == [0, 0, 0] and found[-1].tolist() == [255, 255, 255]
    assert found[50].tolist() == [128, 128, 128]


def test_missing_components_are_half_of_a_colour():
    scores = torch.linspace(-1, 1, 9, dtype=torch.float64)[:, None]
    found = colours(scores, *bounds(scores))
    assert (found[:, 1:] == 128).all() and found[0, 0] == 0 and found[-1, 0] == 255


def test_components_of_maps_do_not_depend_on_which_picture_comes_first():
    maps = random_maps(10).permute(0, 2, 3, 1)
    first, second = (principal_components(x.flatten(0, 2), 3) for x in (maps, maps.flip(0)))
    assert first is not None and second is not None
    torch.testing.assert_close(first.directions, second.directions)
