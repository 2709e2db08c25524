"""Shifted test sets: judged by the classifier of ImageNet-1K as it is, among the classes that count."""

from pathlib import Path

import pytest
import torch
from squares import write_squares

from unic.core.errors import DataError
from unic.data.datasets import Roots
from unic.data.datasets.wordnet_ids import class_subset, wnids
from unic.evals.evaluate import evaluate
from unic.evals.registry import EvalOptions

OPTIONS = EvalOptions(workers=0, allow_count_mismatch=True)


@pytest.fixture
def roots(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Roots:
    """Three classes of ImageNet: two that ImageNet-R has, and a third that looks like its blue."""
    monkeypatch.setenv("UNIC_CACHE", str(tmp_path / "cache"))
    counts = class_subset("imagenet_r")
    other = next(label for label in range(1000) if label not in counts)
    red, blue, bluish = (wnids()[label] for label in (counts[0], counts[1], other))
    for split, number in (("train", 10), ("val", 2)):
        write_squares(tmp_path / "in1k" / split / red, (220, 30, 20), number)
        write_squares(tmp_path / "in1k" / split / blue, (20, 40, 220), number)
        write_squares(tmp_path / "in1k" / split / bluish, (20, 110, 150), number)
    write_squares(tmp_path / "imagenet_r" / red, (200, 40, 40), 2)
    # A rendition that the third class resembles most.
    write_squares(tmp_path / "imagenet_r" / blue, (20, 110, 150), 3)
    return Roots(tmp_path)


def test_a_shifted_set_is_scored_among_its_own_classes(encoder, roots: Roots, cpu: torch.device):
    results = evaluate(encoder, "imagenet_r", roots, ["logreg-fast"], OPTIONS, cache=None, device=cpu)
    found = {result.metric: result.value for result in results}
    assert found["top1"] == 100.0 and found["mean_per_class"] == 100.0
    assert found["top1_all_classes"] == 40.0  # the three blue ones go to the class that does not count


def test_its_classifier_is_that_of_imagenet(encoder, roots: Roots, cpu: torch.device, tmp_path: Path):
    cache = tmp_path / "kept"
    (plain, *_) = evaluate(encoder, "in1k", roots, ["logreg-fast"], OPTIONS, cache=cache, device=cpu)
    calls, kept = encoder.calls, sorted(cache.glob("classifiers/*/fitted"))
    (shifted, *_) = evaluate(encoder, "imagenet_r", roots, ["logreg-fast"], OPTIONS, cache=cache, device=cpu)
    assert encoder.calls == calls + 1, "training images are encoded once for both sets"
    assert sorted(cache.glob("classifiers/*/fitted")) == kept and len(kept) == 1
    assert plain.protocol == shifted.protocol and plain.data_hash != shifted.data_hash


def test_without_imagenet_there_is_no_classifier(encoder, roots: Roots, cpu: torch.device):
    alone = Roots(None, {"imagenet_r": roots.find("imagenet_r"), "in1k": Path("/nowhere")})
    with pytest.raises(DataError, match=r"/nowhere.*no such folder|no such folder.*/nowhere"):
        evaluate(encoder, "imagenet_r", alone, ["logreg-fast"], OPTIONS, cache=None, device=cpu)
