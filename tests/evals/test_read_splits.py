"""What is learned from, what is scored, and what counts as right."""

import math
from pathlib import Path

import numpy as np
import pytest
import torch

from unic.core.errors import ConfigError
from unic.data.datasets import Roots, Targets
from unic.data.labeled_images import ImageList
from unic.evals.read_splits import Splits, ranking, read_splits


def splits(labels: list[int], targets: Targets | None = None) -> Splits:
    images = ImageList(
        tuple(f"/none/{i}.png" for i in range(len(labels))), np.array(labels), tuple("abcdef"), "t", "/none"
    )
    plain = Targets(tuple(range(6)), tuple((label,) for label in labels))
    return Splits(None, images, targets or plain)


def test_classes_are_ranked_by_score_and_no_answer_is_minus_one():
    inf, nan = math.inf, math.nan
    scores = torch.tensor([[1.0, 3.0, 2.0, -inf], [2.0, 2.0, -inf, nan], [-inf, nan, -inf, -inf]])
    assert ranking(scores).tolist() == [[1, 2, 0, -1], [0, 1, -1, -1], [-1, -1, -1, -1]]
    assert ranking(torch.arange(9.0)[None]).tolist() == [[8, 7, 6, 5, 4]]


def test_mean_per_class_weighs_classes_equally_and_leaves_out_those_without_test_images():
    data = splits([0, 0, 0, 0, 2, 5, 5])
    predicted = torch.tensor([0, 0, 0, 1, 0, 5, 5])[:, None]
    assert data.mean_per_class(predicted) == pytest.approx(100 * (3 / 4 + 0 + 1) / 3)
    assert data.accuracy(predicted, 1) == pytest.approx(100 * 5 / 7)


def test_accuracy_is_the_share_of_right_images_in_percent():
    ranked = torch.tensor([[0, 1, -1], [1, 2, 0], [1, 2, -1], [2, -1, -1]])
    data = splits([0, 1, 2, 1])
    assert data.accuracy(ranked, 1) == 50.0 and data.accuracy(ranked, 5) == 75.0


def test_only_classes_that_count_are_answers_and_any_right_one_is_a_hit():
    data = splits([0, 1, 1], Targets((1, 3, 4), ((1,), (3, 4), (4,))))
    scores = torch.tensor([[9.0, 1.0, 8.0, 0.0, -1.0, 7.0]] * 3)
    ranked = data.ranked(scores)
    assert ranked.tolist() == [[1, 3, 4, -1, -1]] * 3
    assert [round(data.accuracy(ranked, top), 3) for top in (1, 2, 3)] == [33.333, 66.667, 100.0]
    assert data.accuracy(ranking(scores), 1) == 0.0  # class 0 has the highest score of all six


def test_a_class_without_score_is_never_a_hit():
    data = splits([0, 3])
    assert data.accuracy(torch.full((2, 5), -1), 5) == 0.0


def test_the_hash_of_a_split_knows_paths_sizes_and_labels_and_no_times(root: Path, tmp_path: Path):
    def identity() -> str:
        return read_splits("image_folder", Roots(root)).identity()

    first = identity()
    image = root / "test" / "red" / "0.png"
    image.touch()
    moved = root.rename(tmp_path / "elsewhere")
    assert read_splits("image_folder", Roots(moved)).identity() == first
    moved.rename(root)
    image.write_bytes(image.read_bytes() + b" ")
    assert identity() != first


def test_an_evaluation_that_learns_nothing_reads_no_training_images(root: Path):
    for image in (root / "train").rglob("*.png"):
        image.unlink()
    found = read_splits("image_folder", Roots(root), uses_train=False)
    assert found.train is None and len(found.test) == 6 and found.test.classes == ("blue", "red")


def test_places_of_data_sets_are_read_from_words(tmp_path: Path):
    (tmp_path / "dtd").mkdir()
    roots = Roots.parse([str(tmp_path), "pets=/data/oxford=pets"])
    assert roots.find("dtd") == tmp_path / "dtd" and roots.has("dtd")
    assert roots.find("pets") == Path("/data/oxford=pets") and not roots.has("pets")
    assert roots.find("flowers") == tmp_path and not roots.has("flowers")
    with pytest.raises(ConfigError, match="two folders of data sets"):
        Roots.parse(["a", "b"])
    with pytest.raises(ConfigError, match=r"where is dtd\? --data-root dtd=FOLDER"):
        Roots.parse(["pets=/x"]).find("dtd")
