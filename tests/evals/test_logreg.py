"""The exact protocol: what is searched, what is kept, what is reported; and bad input."""

import logging
import math

import pytest
import torch
from sklearn.linear_model import LogisticRegression

from unic.core.errors import ConfigError, DataError
from unic.evals.evaluate import evaluate
from unic.evals.linear.linear_probe import Classifier, fit_classifier, protocol
from unic.evals.logreg import EXACT, scikit_learn
from unic.evals.logreg_fast import FAST
from unic.evals.protocols.logreg import LogregConfig
from unic.evals.registry import options_type

QUICK = LogregConfig(num_trials=3)


def clusters(num_images=60, width=5, num_classes=3, seed=0):
    rng = torch.Generator().manual_seed(seed)
    labels = torch.arange(num_images) % num_classes
    centres = torch.randn(num_classes, width, generator=rng)
    return centres[labels] + torch.randn(num_images, width, generator=rng), labels


def fit(features, labels, num_classes, *, method=EXACT, config=QUICK, cache=None, seed=22):
    return fit_classifier(features, labels, num_classes, method=method, config=config, seed=seed, cache=cache)


def test_the_last_fit_is_scikit_learns_on_all_images_with_the_best_c():
    features, labels = clusters()
    found = fit(features, labels, 3)
    model = LogisticRegression(C=found.settings["C"], max_iter=2000).fit(features.numpy(), labels.numpy())
    torch.testing.assert_close(found.weight, torch.from_numpy(model.coef_).float())
    torch.testing.assert_close(found.bias, torch.from_numpy(model.intercept_).float())
    assert not found.unit_length


def test_two_classes_have_a_row_each_and_scikit_learns_answers():
    features, labels = clusters(num_classes=2)
    weight, bias = scikit_learn(features, labels, 2, 1.0)
    model = LogisticRegression(max_iter=2000).fit(features.numpy(), labels.numpy())
    torch.testing.assert_close(
        (features @ weight.T + bias).softmax(1),
        torch.from_numpy(model.predict_proba(features.numpy())).float(),
        rtol=1e-4,
        atol=1e-5,
    )


@pytest.mark.parametrize("method", [EXACT, FAST], ids=lambda m: m.name)
def test_labels_may_leave_numbers_out_and_a_class_never_seen_is_never_named(method):
    features, labels = clusters()
    plain = fit(features, labels, 3, method=method)
    gaps = fit(features, 2 * labels + 1, 7, method=method)
    assert torch.equal(gaps.weight[[1, 3, 5]], plain.weight)
    scores = gaps.scores(features)
    assert (scores[:, [0, 2, 4, 6]] == -math.inf).all()
    torch.testing.assert_close(scores[:, [1, 3, 5]], plain.scores(features))


@pytest.mark.parametrize("method", [EXACT, FAST], ids=lambda m: m.name)
def test_a_class_with_one_image_is_learned(method):
    features, labels = clusters()
    features = torch.cat([features, torch.full((1, 5), 20.0)])
    found = fit(features, torch.cat([labels, torch.tensor([3])]), 4, method=method)
    assert found.weight.isfinite().all() and found.bias.isfinite().all()


@pytest.mark.parametrize("method", [EXACT, FAST], ids=lambda m: m.name)
@pytest.mark.parametrize(
    "features",
    [torch.ones(30, 4), torch.zeros(30, 4), torch.eye(30), 1e6 * clusters(30)[0], 1e-6 * clusters(30)[0]],
    ids=["equal", "zero", "one of each", "huge", "tiny"],
)
def test_odd_features_give_finite_answers(method, features):
    found = fit(features, torch.arange(30) % 3, 3, method=method)
    assert found.scores(features).isfinite().all()
    assert 0 <= found.held_out <= 100


@pytest.mark.parametrize("method", [EXACT, FAST], ids=lambda m: m.name)
def test_bad_input_is_refused_with_a_sentence(method):
    features, labels = clusters()
    with pytest.raises(DataError, match="not finite"):
        fit(features / 0.0, labels, 3, method=method)
    with pytest.raises(DataError, match="1 class"):
        fit(features, labels * 0, 3, method=method)
    with pytest.raises(DataError, match="60 training images of 60 classes"):
        fit(features, torch.arange(60), 60, method=method)


@pytest.mark.parametrize("method", [EXACT, FAST], ids=lambda m: m.name)
def test_large_sets_are_learned_by_sgd_on_features_of_length_one(method):
    features, labels = clusters(120)
    config = LogregConfig(num_trials=2, large="yes")
    found = fit(features, labels, 3, method=method, config=config)
    assert found.unit_length and set(found.settings) == {"rate", "decay"}
    torch.testing.assert_close(found.scores(features), found.scores(1000 * features))
    assert (found.scores(features).argmax(1) == labels).float().mean() > 0.6
    assert not LogregConfig().is_large(100_000) and LogregConfig().is_large(100_001)
    assert not LogregConfig(large="no").is_large(10**7)


@pytest.mark.parametrize("method", [EXACT, FAST], ids=lambda m: m.name)
def test_compat_split_gives_a_classifier_even_where_it_leaves_a_class_nothing(method):
    features, labels = clusters(63)
    labels[-3:] = torch.tensor([3, 3, 3])
    found = fit(features, labels, 4, method=method, config=LogregConfig(num_trials=2, compat_split=True))
    assert found.bias.isfinite().all()
    labels[-3:] = torch.tensor([3, 4, 5])  # class 3 has one image: all later ones are held out whole
    found = fit(features, labels, 6, method=method, config=LogregConfig(num_trials=2, compat_split=True))
    assert found.bias.isfinite().all() and 0 <= found.held_out <= 100


def test_a_kept_classifier_is_used_again_unless_damaged(tmp_path, caplog):
    features, labels = clusters()
    first = fit(features, labels, 3, cache=tmp_path)
    (kept,) = tmp_path.glob("classifiers/*/fitted/tensors.safetensors")
    before = kept.stat().st_ino
    again = fit(features, labels, 3, cache=tmp_path)
    assert kept.stat().st_ino == before
    assert torch.equal(again.weight, first.weight) and again.settings == first.settings
    kept.write_bytes(kept.read_bytes()[:-3])
    with caplog.at_level(logging.WARNING):
        mended = fit(features, labels, 3, cache=tmp_path)
    assert "computed again" in caplog.text and torch.equal(mended.weight, first.weight)


def test_other_features_labels_seeds_or_settings_are_never_served_from_the_cache(tmp_path):
    features, labels = clusters()
    fit(features, labels, 3, cache=tmp_path)
    fit(features + 1e-6, labels, 3, cache=tmp_path)
    fit(features, labels.flip(0), 3, cache=tmp_path)
    fit(features, labels, 4, cache=tmp_path)
    fit(features, labels, 3, cache=tmp_path, seed=23)
    fit(features, labels, 3, cache=tmp_path, config=LogregConfig(num_trials=4))
    fit(features, labels, 3, cache=tmp_path, method=FAST)
    assert len(list(tmp_path.glob("classifiers/*"))) == 7


def test_protocols_name_what_is_not_the_default():
    assert protocol(EXACT, LogregConfig(), 100) == "logreg-1"
    assert protocol(FAST, LogregConfig(), 10**6) == "logreg-fast-sgd-1"
    config = LogregConfig(num_trials=5, compat_split=True)
    assert protocol(EXACT, config, 10**6) == "logreg-sgd-1 trials=5 compat_split"


@pytest.mark.parametrize("name", ["logreg", "logreg-fast"])
def test_results_tell_top1_first_and_several_seeds_their_spread(encoder, root, cpu, name, tmp_path):
    def results(**fields):
        settings = {name.replace("-", "_"): LogregConfig(num_trials=3, **fields)}
        options = options_type()(workers=0, **settings)
        return evaluate(encoder, "image_folder", root, [name], options, cache=tmp_path / "c", device=cpu)

    one = results()
    assert [r.metric for r in one] == ["top1", "top5", "mean_per_class"]
    assert one[0].value == 100.0 and one[0].protocol == f"{name}-1 trials=3"
    several = results(seeds=(1, 2, 3))
    assert [r.metric for r in several[3:]] == ["top1_std", "top5_std", "mean_per_class_std"]
    assert several[0].protocol.endswith("seeds=1,2,3") and not several[3].higher_is_better


def test_features_are_scored_where_they_are_and_unit_length_ones_at_length_one():
    weight, bias = torch.tensor([[1.0, 0.0], [0.0, 2.0]]), torch.tensor([0.0, 1.0])
    rows = torch.tensor([[3.0, 4.0]])
    assert Classifier(weight, bias, False, {}, 0.0).scores(rows).tolist() == [[3.0, 9.0]]
    scores = Classifier(weight, bias, True, {}, 0.0).scores(rows)
    torch.testing.assert_close(scores, torch.tensor([[0.6, 2.6]]))


@pytest.mark.parametrize("fields", [{"seeds": ()}, {"seeds": (1, 1)}, {"seeds": (-1,)}, {"num_trials": 0}])
def test_impossible_settings_are_refused(fields):
    with pytest.raises(ConfigError, match="expected"):
        LogregConfig(**fields)
