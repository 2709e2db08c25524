"""The fast solver against scikit-learn, on the objective, the weights and the answers."""

import logging
import math
import warnings

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.linear_model import LogisticRegression

from unic.evals.linear import lbfgs
from unic.evals.linear.linear_probe import fit_classifier
from unic.evals.logreg import EXACT, scikit_learn
from unic.evals.logreg_fast import FAST, SolutionPath
from unic.evals.protocols.logreg import LogregConfig

ALL_C = [1e-5, 1e-2, 1.0, 1e3, 1e6]
TIGHT = {"decrement": 1e-15, "relative": 1e-9, "gradient": 1e-9}


def problem(num_rows, width, num_classes=4, *, seed=0, dtype=torch.float64):
    """Features as encoders give them: variances that differ 1000-fold, a mean far from zero, overlap."""
    rng = torch.Generator().manual_seed(seed)
    labels = torch.arange(num_rows) % num_classes
    scale = torch.logspace(0, -1.5, width, dtype=dtype)
    centres = torch.randn(num_classes, width, generator=rng, dtype=dtype)
    features = centres[labels] + torch.randn(num_rows, width, generator=rng, dtype=dtype)
    return 3 + features * scale, labels


def objective(features, labels, weight, bias, C):
    """scikit-learn's, over C N, in NumPy."""
    x, w, b = (np.asarray(t, dtype=np.float64) for t in (features, weight, bias))
    logits = x @ w.T + b
    logits -= logits.max(1, keepdims=True)
    loss = np.log(np.exp(logits).sum(1)) - logits[np.arange(len(x)), labels.numpy()]
    return loss.mean() + (w**2).sum() / (2 * C * len(x))


def fast(features, labels, C, num_classes=4, **tolerances):
    axes = lbfgs.Axes.of(features)
    return axes.back(*lbfgs.solve(axes.to(features), labels, num_classes, C, **tolerances))


@pytest.mark.parametrize("C", ALL_C)
@pytest.mark.parametrize("shape", [(80, 12), (24, 40)], ids=["N > D", "N < D"])
def test_the_optimum_is_scikit_learns_in_float64(C, shape):
    features, labels = problem(*shape)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # Newton's method ends where rounding stops it
        model = LogisticRegression(C=C, tol=1e-10, max_iter=5000, solver="newton-cg")
        model.fit(features.numpy(), labels.numpy())
    weight, bias = fast(features, labels, C, **TIGHT)
    ours = objective(features, labels, weight, bias, C)
    theirs = objective(features, labels, model.coef_, model.intercept_, C)
    assert ours <= theirs * (1 + 1e-7)
    if C <= 1e3:
        assert ours == pytest.approx(theirs, rel=1e-6)
        scores, reference = features @ weight.T + bias, model.decision_function(features.numpy())
        # A bias is free up to a constant for all classes.
        scores = (scores - scores.mean(1, keepdim=True)).numpy()
        reference = reference - reference.mean(1, keepdims=True)
        np.testing.assert_allclose(scores, reference, rtol=2e-3, atol=2e-3)
        assert (scores.argmax(1) == reference.argmax(1)).all()


@pytest.mark.parametrize("C", ALL_C)
@pytest.mark.parametrize("shape", [(400, 24), (60, 90)], ids=["N > D", "N < D"])
def test_in_float32_the_objective_is_never_above_scikit_learns_at_its_tolerance(C, shape):
    features, labels = problem(*shape, dtype=torch.float32)
    ours = objective(features, labels, *fast(features, labels, C), C)
    theirs = objective(features, labels, *scikit_learn(features, labels, 4, C), C)
    assert ours <= theirs + 1e-6  # one part in a million of the loss of a guess


@settings(max_examples=25, deadline=None)
@given(
    st.integers(4, 60),
    st.integers(1, 30),
    st.integers(2, 4),
    st.floats(-5, 6),
    st.integers(0, 2**31),
)
def test_no_start_moves_the_optimum(num_rows, width, num_classes, log_c, seed):
    features, labels = problem(num_rows, width, num_classes, seed=seed)
    rng = torch.Generator().manual_seed(seed)
    start = lbfgs.Point(
        torch.randn(num_classes, width, generator=rng, dtype=torch.float64),
        torch.randn(num_classes, generator=rng, dtype=torch.float64),
    )
    values = [
        lbfgs.objective(
            lbfgs.solve(features, labels, num_classes, 10**log_c, start=s, **TIGHT),
            features,
            labels,
            10**log_c,
        )
        for s in (None, start)
    ]
    assert values[0] == pytest.approx(values[1], rel=1e-5, abs=1e-12)


@pytest.mark.parametrize("shape", [(50, 8), (8, 50), (8, 8)])
def test_axes_change_neither_scores_nor_the_length_of_weights(shape):
    features, _ = problem(*shape)
    axes = lbfgs.Axes.of(features)
    coordinates = axes.to(features)
    assert coordinates.shape == (shape[0], min(shape))
    rng = torch.Generator().manual_seed(1)
    weight = torch.randn(4, min(shape), generator=rng, dtype=torch.float64)
    bias = torch.randn(4, generator=rng, dtype=torch.float64)
    back = axes.back(weight, bias)
    torch.testing.assert_close(features @ back[0].T + back[1], coordinates @ weight.T + bias)
    torch.testing.assert_close(back[0].norm(), weight.norm())
    spread = coordinates.T @ coordinates
    torch.testing.assert_close(spread, spread.diag().diag(), rtol=0, atol=1e-9)


def test_two_classes_are_scikit_learns_single_row():
    features, labels = problem(80, 6, 2)
    model = LogisticRegression(C=0.1, tol=1e-10, max_iter=5000).fit(features.numpy(), labels.numpy())
    axes = lbfgs.Axes.of(features)
    path = SolutionPath(axes.to(features), labels, 2)
    weight, bias = axes.back(*path.at(0.1))
    chances = (features @ weight.T + bias).softmax(1).numpy()
    np.testing.assert_allclose(chances, model.predict_proba(features.numpy()), atol=2e-3)


def test_a_path_starts_between_its_neighbours():
    features, labels = problem(40, 5)
    path = SolutionPath(features, labels, 4)
    assert path.near(1.0) is None
    low = path.at(0.01)
    assert path.near(1.0) is low and path.near(1e-5) is low
    high = path.at(100.0)
    between = path.near(1.0)
    assert between is not None
    torch.testing.assert_close(between.weight, (low.weight + high.weight) / 2)
    assert path.near(1e4) is high and path.near(1e-4) is low


@pytest.mark.parametrize("num_classes", [2, 5])
@pytest.mark.parametrize("shape", [(200, 10), (400, 30)])
def test_the_choice_is_as_good_as_that_of_the_exact_protocol(shape, num_classes):
    # So much noise that no C separates the classes: where one does, scikit-learn stops at its first step that is
    # good enough, far from the optimum, and its held-out accuracy is chance.
    rng = torch.Generator().manual_seed(1)
    features, labels = problem(*shape, num_classes, dtype=torch.float32)
    features = features + 2.0 * torch.randn(features.shape, generator=rng)
    config = LogregConfig(num_trials=12)
    exact, quick = (
        fit_classifier(features, labels, num_classes, method=method, config=config, seed=22)
        for method in (EXACT, FAST)
    )
    one_image = 100 / (0.2 * shape[0])
    assert abs(quick.held_out - exact.held_out) <= one_image + 1e-6
    # At the same C the answers are the same, but where two classes are as likely.
    same = scikit_learn(features, labels, num_classes, quick.settings["C"])
    agree = (features @ same[0].T + same[1]).argmax(1) == quick.scores(features).argmax(1)
    assert agree.double().mean() >= 0.98


def test_the_same_seed_gives_the_same_classifier():
    features, labels = problem(60, 8, dtype=torch.float32)
    config = LogregConfig(num_trials=12)
    first, again = (fit_classifier(features, labels, 4, method=FAST, config=config, seed=1) for _ in range(2))
    assert torch.equal(first.weight, again.weight) and first.settings == again.settings


def test_hard_problems_end_with_a_warning_and_finite_weights(caplog, monkeypatch):
    monkeypatch.setattr(lbfgs, "MAX_STEPS", 3)
    features, labels = problem(60, 8)
    with caplog.at_level(logging.WARNING):
        point = lbfgs.solve(features, labels, 4, 1.0, **TIGHT)
    assert "not solved after 3 steps" in caplog.text
    assert point.weight.isfinite().all()
    assert lbfgs.objective(point, features, labels, 1.0) < math.log(4)


@pytest.mark.gpu
def test_an_accelerator_finds_the_same_optimum():
    accelerator = torch.accelerator.current_accelerator(check_available=True)
    if accelerator is None:
        pytest.skip("no accelerator here")
    features, labels = problem(300, 40, dtype=torch.float32)
    expected = objective(features, labels, *fast(features, labels, 1.0), 1.0)
    weight, bias = fast(features.to(accelerator), labels.to(accelerator), 1.0)
    assert objective(features, labels, weight.cpu(), bias.cpu(), 1.0) == pytest.approx(expected, rel=1e-4)
