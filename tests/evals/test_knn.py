"""k-NN against two other ways to the same answer: a plain loop in float64 NumPy, and scikit-learn."""

import logging

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.neighbors import KNeighborsClassifier

from unic.core.errors import ConfigError
from unic.evals import knn, knn_search_fast
from unic.evals.knn import _possible_ks, _ranking, knn_predict
from unic.evals.knn_search_exact import GRID, nearest
from unic.evals.knn_search_fast import MOST, KnnIndex, neighbour_search
from unic.evals.protocols.knn import KnnConfig
from unic.evals.registry import EvalOptions, own_settings

T = 0.07


FORMATS = [torch.bfloat16, torch.float32]


def nearest_fast(queries, rows, k, chunk):
    search = neighbour_search(rows, k, chunk)
    parts = [search(part) for part in queries.split(chunk)]
    return torch.cat([sims for sims, _ in parts]), torch.cat([index for _, index in parts])


def brute_force(train, labels, test, k, num_classes, temperature=T):
    """The definition, one image at a time: for each the classes with a vote, from most to fewest, then -1."""
    train, test = (x / np.maximum(np.linalg.norm(x, axis=1, keepdims=True), 1e-12) for x in (train, test))
    ranked = []
    for query in test:
        sims = np.array([np.round((query * row).sum() / GRID) * GRID for row in train])
        near = sorted(range(len(train)), key=lambda j: (-sims[j], j))[:k]
        votes = np.zeros(num_classes)
        for j in near:
            votes[labels[j]] += np.exp((sims[j] - sims[near[0]]) / temperature)
        votes = votes.astype(np.float32)
        order = sorted((c for c in range(num_classes) if votes[c] > 0), key=lambda c: (-votes[c], c))
        ranked.append((order + [-1] * 5)[: min(5, num_classes)])
    return np.array(ranked)


def predict(train, labels, test, ks, num_classes, chunk=7, temperature=T):
    return knn_predict(
        torch.from_numpy(train),
        torch.from_numpy(labels),
        torch.from_numpy(test),
        ks=ks,
        temperature=temperature,
        num_classes=num_classes,
        chunk=chunk,
    )


@st.composite
def cases(draw):
    num_train, num_test = draw(st.integers(1, 30)), draw(st.integers(1, 8))
    width, num_classes = draw(st.integers(1, 6)), draw(st.integers(1, 8))
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    if draw(st.booleans()):  # small whole numbers: many equal similarities, and some rows of zeros
        train, test = (rng.integers(-2, 3, (n, width)).astype(np.float32) for n in (num_train, num_test))
    else:
        train, test = (rng.normal(size=(n, width)).astype(np.float32) for n in (num_train, num_test))
    labels = rng.integers(0, num_classes, num_train)
    ks = draw(st.lists(st.integers(1, num_train), min_size=1, max_size=4, unique=True))
    return train, labels, test, ks, num_classes, draw(st.integers(1, 40))


@settings(max_examples=200, deadline=None)
@given(cases())
def test_knn_is_the_brute_force_loop(case):
    train, labels, test, ks, num_classes, chunk = case
    found = predict(train, labels, test, ks, num_classes, chunk)
    assert set(found) == set(ks)
    for k in ks:
        expected = brute_force(train.astype(np.float64), labels, test.astype(np.float64), k, num_classes)
        np.testing.assert_array_equal(found[k].numpy(), expected)


@pytest.mark.parametrize("k", [1, 5, 20, 60])
@pytest.mark.parametrize("temperature", [0.07, 1.0])
def test_knn_is_scikit_learns_with_exponential_weights(k, temperature):
    rng = np.random.default_rng(k)
    train, test = (rng.normal(size=(n, 16)).astype(np.float32) for n in (60, 40))
    labels = rng.integers(0, 5, 60)
    unit_train, unit_test = (x / np.linalg.norm(x, axis=1, keepdims=True) for x in (train, test))
    # Between unit vectors similarity = 1 - distance^2 / 2, so the neighbours are the same.
    other = KNeighborsClassifier(
        k, weights=lambda distance: np.exp((1 - distance**2 / 2) / temperature), algorithm="brute"
    ).fit(unit_train.astype(np.float64), labels)
    found = predict(train, labels, test, [k], 5, temperature=temperature)[k][:, 0]
    np.testing.assert_array_equal(found.numpy(), other.predict(unit_test.astype(np.float64)))


@pytest.mark.parametrize("chunk", [1, 3, 64, 99, 100, 10_000])
def test_the_chunk_never_changes_the_answer(chunk):
    rng = np.random.default_rng(0)
    # Odd width, duplicates and mirrored rows: the last bits of a matrix product depend on its shape.
    train = rng.normal(size=(99, 37)).astype(np.float32)[rng.integers(0, 99, 200)]
    test = np.concatenate([rng.normal(size=(30, 37)).astype(np.float32), train[:20], -train[:20]])
    labels = rng.integers(0, 10, 200)
    expected = predict(train, labels, test, [1, 10, 100, 200], 10, chunk=128)
    found = predict(train, labels, test, [1, 10, 100, 200], 10, chunk=chunk)
    for k in expected:
        assert torch.equal(found[k], expected[k])


def test_among_equal_images_the_one_of_smaller_index_is_nearer():
    sims, index = nearest(torch.ones(2, 1), torch.ones(9, 1), 4, chunk=2)
    assert torch.equal(index, torch.arange(4).expand(2, 4))
    assert torch.equal(sims, torch.ones(2, 4, dtype=torch.float64))


def test_negative_and_zero_similarities_are_in_order():
    rows = torch.tensor([[-3.0, 4.0], [-0.0, 1.0], [2.0, 0.0], [0.0, 1.0], [-1.0, 0.0], [3.0, 4.0]])
    sims, index = nearest(torch.tensor([[2.0, 0.0]]), rows, 6, chunk=4)
    assert index.tolist() == [[2, 5, 1, 3, 0, 4]]
    assert sims[0].tolist() == pytest.approx([1.0, 0.6, 0.0, 0.0, -0.6, -1.0], abs=1e-9)  # GRID


def clustered(generator, count, width, num_centres=20, spread=0.3):
    centres = generator.normal(size=(num_centres, width))
    return centres[np.sort(generator.integers(0, num_centres, count))] + spread * generator.normal(
        size=(count, width)
    )


def tied(generator, count, width):
    """Few different vectors, of several lengths: most similarities occur many times."""
    features = generator.integers(-1, 2, (count, width)) * generator.choice([0.5, 1, 3], (count, 1))
    features[::50] = 0
    return features


FEATURES = {
    "normal": lambda g, n: g.normal(size=(n, 40)),
    "narrow": lambda g, n: g.normal(size=(n, 2)),
    "clustered, not negative": lambda g, n: np.maximum(clustered(g, n, 64), 0),
    "nearly all alike": lambda g, n: 1 + 0.01 * g.normal(size=(n, 33)),
    "alike beyond bfloat16": lambda g, n: clustered(g, n, 48, num_centres=2, spread=1e-4),
    "tied": lambda g, n: tied(g, n, 6),
    "constant": lambda g, n: np.full((n, 5), 0.3),
    "zero": lambda g, n: np.zeros((n, 5)),
    "tiny and huge": lambda g, n: g.normal(size=(n, 16)) * 10.0 ** g.integers(-30, 30, (n, 1)),
}


@pytest.mark.parametrize("kind", FEATURES)
@pytest.mark.parametrize(("count", "k", "chunk"), [(1501, 20, 256), (1501, 20, 37), (900, 1, 10_000)])
@pytest.mark.parametrize("dtype", FORMATS)
def test_the_fast_search_finds_what_the_definition_says(kind, count, k, chunk, dtype, monkeypatch):
    monkeypatch.setattr(knn_search_fast, "product_dtype", lambda device: dtype)
    rng = np.random.default_rng(count + chunk)
    features = torch.from_numpy(FEATURES[kind](rng, count + 60).astype(np.float32))
    queries, rows = features[::25][:60], features[60:]
    rows = torch.cat([rows, rows[:100], queries[:10]])  # exact duplicates, and similarities of 1
    sims, index = nearest_fast(queries, rows, k, chunk)
    expected_sims, expected_index = nearest(queries, rows, k, chunk)
    assert torch.equal(index, expected_index)
    assert torch.equal(sims, expected_sims)


@st.composite
def degenerate_cases(draw):
    """Features of one kind or two, of unequal norms, each row up to 40 times, in any order, in unequal classes."""
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    kinds = draw(st.lists(st.sampled_from(sorted(FEATURES)), min_size=1, max_size=2, unique=True))
    parts = [FEATURES[kind](rng, 200)[:, :2] for kind in kinds]
    scale = 10.0 ** draw(st.sampled_from([-20, -6, 0, 6, 18]))
    rows = (np.concatenate(parts) * scale).clip(-3e38, 3e38).astype(np.float32)
    rows = rows[rng.integers(0, len(rows), 800) // draw(st.sampled_from([1, 2, 40]))]
    labels = (rng.random(800) ** 4 * 6).astype(np.int64)
    queries = np.concatenate([rows[:20], rng.normal(size=(20, 2)).astype(np.float32)])
    return rows, labels, queries, draw(st.integers(1, 800 // MOST - 1)), draw(st.integers(20, 900))


@settings(max_examples=60, deadline=None)
@given(degenerate_cases(), st.sampled_from(FORMATS))
def test_every_prediction_is_the_definitions_whatever_the_features(case, dtype):
    rows, labels, queries, k, chunk = case
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(knn_search_fast, "product_dtype", lambda device: dtype)
        fast = predict(rows, labels, queries, [1, k], 6, chunk)
        patch.setattr(knn, "neighbour_search", lambda rows, k, chunk: lambda q: nearest(q, rows, k, chunk))
        exact = predict(rows, labels, queries, [1, k], 6, chunk)
    for each in (1, k):
        assert torch.equal(fast[each], exact[each])


@pytest.mark.parametrize("dtype", FORMATS)
def test_the_fast_search_is_right_where_the_threshold_is_a_bad_guess(dtype, monkeypatch):
    monkeypatch.setattr(knn_search_fast, "product_dtype", lambda device: dtype)
    rng = np.random.default_rng(7)
    rows, queries = (torch.from_numpy(rng.normal(size=(n, 24)).astype(np.float32)) for n in (2000, 50))
    expected = nearest(queries, rows, 15, 500)
    for guess in (-5.0, 0.3, 0.9, 5.0):  # all rows are left, too many, too few, none
        monkeypatch.setattr(KnnIndex, "_guess", lambda self, factors, k, g=guess: torch.full((50,), g))
        sims, index = nearest_fast(queries, rows, 15, 500)
        assert torch.equal(sims, expected[0]) and torch.equal(index, expected[1])


@pytest.mark.parametrize("kind", ["normal", "clustered, not negative", "nearly all alike", "tiny and huge"])
@pytest.mark.parametrize("dtype", FORMATS)
def test_no_row_above_the_threshold_is_ruled_out(kind, dtype, monkeypatch):
    monkeypatch.setattr(knn_search_fast, "product_dtype", lambda device: dtype)
    rng = np.random.default_rng(11)
    features = torch.from_numpy(FEATURES[kind](rng, 1640).astype(np.float32))
    queries, rows = features[::41], features
    unit = F.normalize(queries.double(), dim=1)
    threshold, candidates = KnnIndex.of(rows, 200)._candidates(unit, 100)
    above = unit @ F.normalize(rows.double(), dim=1).T >= threshold[:, None]
    left = torch.zeros_like(above)
    for query, rows_of_query in enumerate(candidates):
        left[query, rows_of_query] = True
    by_definition = ~left.any(dim=1)  # too many candidates: a query of length 0 is as near to all
    assert above.any(dim=1).float().mean() > 0.5 and by_definition.float().mean() < 0.5
    assert not (above & ~left)[~by_definition].any()
    assert left.float().mean() < 0.5


@pytest.mark.parametrize("dtype", FORMATS)
def test_the_fast_search_compares_few_rows_once_more(dtype, monkeypatch):
    # Else it would be right but slow: every query left to the definition.
    monkeypatch.setattr(knn_search_fast, "product_dtype", lambda device: dtype)
    rng = np.random.default_rng(13)
    rows, queries = (torch.from_numpy(clustered(rng, n, 64).astype(np.float32)) for n in (8000, 100))
    _, candidates = KnnIndex.of(rows, 1000)._candidates(F.normalize(queries.double(), dim=1), 20)
    counts = np.array([len(rows_of_query) for rows_of_query in candidates])
    assert counts.min() >= 20 and counts.mean() < 8 * 20


def test_a_row_that_is_not_a_number_leaves_all_to_the_definition():
    rng = np.random.default_rng(17)
    rows, queries = (torch.from_numpy(rng.normal(size=(n, 8)).astype(np.float32)) for n in (600, 10))
    rows[77, 3] = float("nan")
    assert torch.equal(nearest_fast(queries, rows, 5, 100)[1], nearest(queries, rows, 5, 100)[1])


def test_a_lower_precision_of_products_chosen_by_the_user_changes_no_neighbour_and_stays_chosen():
    rng = np.random.default_rng(19)
    rows, queries = (torch.from_numpy(rng.normal(size=(n, 64)).astype(np.float32)) for n in (600, 10))
    before = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision("medium")
    try:
        _, index = nearest_fast(queries, rows, 5, 100)
        assert torch.get_float32_matmul_precision() == "medium"
    finally:
        torch.set_float32_matmul_precision(before)
    assert torch.equal(index, nearest(queries, rows, 5, 100)[1])


@pytest.mark.parametrize("num_classes", [1, 3, 300])
def test_ranked_classes_are_those_of_a_stable_sort(num_classes):
    rng = np.random.default_rng(num_classes)
    scores = torch.from_numpy(rng.integers(0, 4, (50, num_classes)).astype(np.float32)) / 3
    scores[0] = 0
    values, classes = scores.sort(dim=1, descending=True, stable=True)
    assert torch.equal(_ranking(scores), torch.where(values > 0, classes, -1)[:, :5])


def test_a_very_low_temperature_asks_the_nearest_image_alone():
    rng = np.random.default_rng(3)
    train, test = rng.normal(size=(40, 8)).astype(np.float32), rng.normal(size=(20, 8)).astype(np.float32)
    labels = rng.integers(0, 4, 40)
    cold = predict(train, labels, test, [20], 4, temperature=1e-6)[20][:, 0]
    assert torch.equal(cold, predict(train, labels, test, [1], 4)[1][:, 0])


def test_a_class_without_a_vote_is_not_among_the_five():
    found = predict(np.eye(3, dtype=np.float32), np.array([4, 2, 7]), np.eye(3, dtype=np.float32), [1], 9)[1]
    assert found.tolist() == [[c, -1, -1, -1, -1] for c in (4, 2, 7)]


def test_one_class_is_always_right_and_a_class_without_training_images_never():
    rows = np.eye(2, dtype=np.float32)
    ranked = predict(rows, np.array([0, 0]), rows, [2], 1)[2]
    assert ranked[:, 0].tolist() == [0, 0]
    ranked = predict(rows, np.array([0, 0]), rows, [2], 3)[2]
    assert set(ranked.flatten().tolist()) == {0, -1}


def test_k_beyond_the_training_images_is_left_out_with_a_warning(caplog):
    with caplog.at_level(logging.WARNING):
        assert _possible_ks((20, 10, 100), 50, "dtd") == {"k20": 20, "k10": 10}
    assert "[100]" in caplog.text and "50 training images" in caplog.text


@pytest.mark.parametrize(
    "fields", [{"ks": ()}, {"ks": (0,)}, {"temperature": 0.0}, {"temperature": float("nan")}, {"chunk": 0}]
)
def test_impossible_settings_are_refused(fields):
    with pytest.raises(ConfigError, match="knn"):
        KnnConfig(**fields)


def test_own_settings_are_the_defaults_unless_chosen():
    assert own_settings(EvalOptions(), "knn") == KnnConfig()


@pytest.mark.gpu
def test_an_accelerator_gives_the_same_answer():
    accelerator = torch.accelerator.current_accelerator(check_available=True)
    if accelerator is None:
        pytest.skip("no accelerator here")
    rng = np.random.default_rng(5)
    train, test = (torch.from_numpy(rng.normal(size=(n, 33)).astype(np.float32)) for n in (9000, 500))
    labels = torch.from_numpy(rng.integers(0, 50, 9000))
    options = {"ks": [20, 200], "temperature": T, "num_classes": 50, "chunk": 1000}
    expected = knn_predict(train, labels, test, **options)
    found = knn_predict(train.to(accelerator), labels.to(accelerator), test.to(accelerator), **options)
    for k in expected:
        assert torch.equal(found[k].cpu(), expected[k])
