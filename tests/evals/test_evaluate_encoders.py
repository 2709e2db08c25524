"""Several encoders on several data sets: what they are called, what is measured, what is said when it cannot be."""

import dataclasses
import json
import logging
import math
from pathlib import Path

import launch
import pytest
import torch
from PIL import Image
from squares import write_squares

from unic.core.errors import ConfigError, DataError
from unic.core.results import StoredResult, read_results
from unic.data.datasets import DATASETS, Roots
from unic.data.decode import read_image
from unic.evals.evaluate_encoders import (
    EvaluationRequest,
    baselines,
    evaluate_encoders,
    labels,
    mean_log_odds,
)
from unic.evals.registry import EVALUATIONS, EvalOptions
from unic.evals.suites import SUITES, suite

CPU = torch.device("cpu")
OPTIONS = EvalOptions(workers=0)


def test_short_names_are_used_until_two_are_the_same(tmp_path: Path):
    runs = [str(tmp_path / place / "run") for place in ("a", "b")]
    for run in runs:
        Path(run).mkdir(parents=True)
    assert labels([runs[0], "dino_vitb16"]) == {runs[0]: "run", "dino_vitb16": "dino_vitb16"}
    found = labels([*runs, "timm:resnet18?cls=pooled", "timm:resnet18?image_size=96"])
    assert list(found.values()) == [*runs, "timm:resnet18?cls=pooled", "timm:resnet18?image_size=96"]
    assert baselines([*runs, "dino_vitb16"]) == ["dino_vitb16"]


def request(
    references: list[str], plan: dict[str, tuple[str, ...]], roots: Roots, **more
) -> EvaluationRequest:
    return EvaluationRequest(references=references, plan=plan, roots=roots, options=OPTIONS, **more)


TINY = "timm:resnet10t?pretrained=0&image_size=32"


@pytest.fixture
def places(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Roots:
    monkeypatch.setenv("UNIC_CACHE", str(tmp_path / "cache"))
    for split, count in (("train", 6), ("test", 2)):
        for name, colour in (("a", (220, 30, 20)), ("b", (20, 40, 220))):
            write_squares(tmp_path / "image_folder" / split / name, colour, count)
    return Roots(tmp_path)


def test_every_data_set_that_is_missing_is_named_before_anything_is_computed(places: Roots):
    plan = {"image_folder": ("knn",), "dtd": ("knn",), "imagenet_a": ("logreg-fast",)}
    with pytest.raises(DataError, match=r"2 of 3 data sets have no folder.*dtd, imagenet_a.*--skip-missing"):
        evaluate_encoders(request([TINY], plan, places), device=CPU)
    with pytest.raises(ConfigError, match="did you mean knn"):
        evaluate_encoders(request([TINY], {"image_folder": ("knnn",)}, places), device=CPU)
    with pytest.raises(ConfigError, match="unknown data set"):
        evaluate_encoders(request([TINY], {"nowhere": ("knn",)}, places), device=CPU)


def test_what_is_missing_can_be_left_out_and_what_does_not_fit_is(
    places: Roots, tmp_path: Path, caplog: pytest.LogCaptureFixture
):
    caplog.set_level(logging.INFO)
    plan = {"image_folder": ("knn", "zero-shot"), "dtd": ("knn",)}
    out = tmp_path / "results.jsonl"
    results = evaluate_encoders(request([TINY], plan, places, skip_missing=True), device=CPU, out=out)
    assert caplog.text.count("left out, because they have no folder: dtd") == 1
    assert {result.evaluation for result in results} == {"knn"}
    assert [json.loads(line)["metric"] for line in out.read_text().splitlines()] == [
        result.metric for result in results
    ]


def test_a_line_of_results_has_its_fields_in_order_and_is_read_as_the_result_it_was(
    places: Roots, tmp_path: Path
):
    out = tmp_path / "results.jsonl"
    results = evaluate_encoders(request([TINY], {"image_folder": ("knn",)}, places), device=CPU, out=out)
    assert list(json.loads(out.read_text().splitlines()[0])) == [
        "model", "dataset", "evaluation", "metric", "value", "unit", "higher_is_better", "protocol", "model_hash",
        "data_hash", "seed", "seconds", "reference", "root", "unic", "time",
    ]  # fmt: skip
    assert read_results(out) == (results, [])
    assert results[0].reference == TINY and results[0].root == str(tmp_path / "image_folder")


def test_the_mean_of_log_odds_leaves_out_imagenet_and_shifted_sets():
    def result(dataset: str, value: float, metric: str = "top1") -> StoredResult:
        return StoredResult(
            model="m", dataset=dataset, evaluation="logreg-fast", metric=metric, value=value, protocol="p",
            data_hash="h", seconds=1.0,
        )  # fmt: skip

    results = [
        result("in1k", 99.0),
        result("dtd", 90.0),
        result("pets", 20.0),
        result("imagenet_a", 1.0),
        result("dtd", 5.0, "top5"),
    ]
    (mean,) = mean_log_odds(results)
    assert mean.value == pytest.approx((math.log(9) + math.log(0.25)) / 2)
    assert (mean.dataset, mean.metric, mean.seconds) == ("mean of 2", "log_odds", 2.0)
    assert mean_log_odds(results[:2]) == []


@pytest.mark.parametrize("name", list(SUITES))
def test_every_suite_names_data_sets_and_evaluations_that_there_are(name: str):
    for dataset, evals in suite(name).items():
        assert dataset in list(DATASETS) and set(evals) <= set(EVALUATIONS)


def test_the_transfer_suite_is_that_of_the_paper():
    assert len(SUITES["transfer"]) == 16
    assert all(DATASETS[name].train_set == "in1k" for name in SUITES["robustness"])
    with pytest.raises(ConfigError, match="did you mean transfer"):
        suite("transfr")


class Counted:
    """Decodes, and remembers how often."""

    def __init__(self) -> None:
        self.paths: list[str] = []

    def __call__(self, path: str | Path) -> Image.Image:
        self.paths.append(str(path))
        return read_image(path)


@pytest.mark.parametrize("one_by_one", [False, True])
def test_an_image_is_decoded_once_for_all_encoders(
    one_by_one: bool, places: Roots, monkeypatch: pytest.MonkeyPatch
):
    counted = Counted()
    monkeypatch.setattr("unic.data.eval_loader.read_image", counted)
    other = "timm:resnet10t?pretrained=0&image_size=64"
    both = request([TINY, other], {"image_folder": ("knn",)}, places, one_by_one=one_by_one)
    assert len({result.model for result in evaluate_encoders(both, device=CPU)}) == 2
    assert len(set(counted.paths)) == 16 and len(counted.paths) == (32 if one_by_one else 16)


@pytest.mark.slow
def test_two_processes_measure_what_one_does(places: Roots, tmp_path: Path):
    assert places.common is not None
    root = str(places.common / "image_folder")
    words = ["evaluate", TINY, "--data-root", root, "--device", "cpu", "--workers", "0", "--out"]
    found = []
    for number in (1, 2):
        out, cache = tmp_path / f"{number}.jsonl", {"UNIC_CACHE": str(tmp_path / f"cache{number}")}
        log = tmp_path / f"{number}.log"
        processes = (
            launch.ranks(2, [*words, str(out)], log, cache)
            if number == 2
            else [launch.unic([*words, str(out)], log, cache)]
        )
        assert launch.finish(*processes) == [0] * number, log.read_text()
        records = [json.loads(line) for line in out.read_text().splitlines()]
        found.append([{**record, "seconds": 0.0, "time": ""} for record in records])
    assert found[0] == found[1] and found[0]


@pytest.mark.parametrize(
    ("plan", "said"),
    [
        ({"image_folder": ("knn",)}, "none of them is asked for"),
        ({"ade20k": ("segmentation",), "nyud": ("depth",)}, "2 of them are asked for"),
    ],
)
def test_a_head_without_the_one_evaluation_it_is_for_is_refused(places: Roots, plan: dict, said: str):
    asked = dataclasses.replace(
        request([TINY], plan, places), options=dataclasses.replace(OPTIONS, head=Path("head.pth"))
    )
    with pytest.raises(ConfigError, match=rf"--head head\.pth is for one evaluation .*, and {said}"):
        evaluate_encoders(asked, device=CPU)
