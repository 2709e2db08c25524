import dataclasses
import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import tyro
from PIL import Image

from unic.core.errors import ConfigError, DataError
from unic.core.registry import import_plugin
from unic.core.results import Result
from unic.data.datasets import DATASETS
from unic.evals.evaluate import evaluate
from unic.evals.protocols.knn import KnnConfig
from unic.evals.registry import EVALUATIONS, EvalOptions, options_type

RESULT = Result(
    model="dino",
    dataset="dtd",
    evaluation="knn",
    metric="top1_k20",
    value=71.5,
    protocol="knn-1",
    model_hash="a1",
    data_hash="b2",
    seconds=3.5,
)

PLUGIN_EVALUATION = """
from dataclasses import dataclass
from unic.evals.registry import EVALUATIONS, Evaluation, own_settings

@dataclass(frozen=True, kw_only=True)
class NormConfig:
    factor: float = 1.0

def run(encoder, data, options):
    factor = own_settings(options, "{name}").factor
    norm = data.features("test").norm(dim=1).mean().item() * factor
    return [data.result("{name}", "norm", norm, protocol="norm-1", unit="", higher_is_better=False)]

EVALUATIONS.add("{name}", Evaluation("{name}", run, "mean length of the CLS features", NormConfig()))
"""

PLUGIN_DATASET = """
from unic.data.datasets import DATASETS, DatasetSpec
from unic.data.folders import read_image_folder

DATASETS.add(
    "{name}",
    DatasetSpec(name="{name}", read=read_image_folder, layout="learn/ and judge/", num_classes=3,
                splits=("learn", "judge")),
)
"""


def plugin(folder: Path, name: str, text: str) -> None:
    path = folder / f"{name.replace('-', '_')}.py"
    path.write_text(text.replace("{name}", name))
    import_plugin(path)


@pytest.fixture(autouse=True)
def forget_plugins(monkeypatch):
    """What a test adds to the registries is gone after it."""
    for registry in (EVALUATIONS, DATASETS):
        list(registry)
        monkeypatch.setattr(registry, "_entries", dict(registry._entries))


def run(encoder, root, cpu, evals=("knn",), options=None, dataset="image_folder", cache=None) -> list[Result]:
    return evaluate(
        encoder, dataset, root, list(evals), options or EvalOptions(workers=0), cache=cache, device=cpu
    )


def test_knn_tells_the_squares_apart_and_test_labels_count_through_the_training_classes(encoder, root, cpu):
    results = run(encoder, root, cpu)
    first = results[0]
    assert (first.model, first.dataset, first.evaluation) == ("mean-colour", "image_folder", "knn")
    # k = 20 of 18 images is left out. "red" is class 1 of the test folder's two, and 2 of the training folder's three.
    assert (first.metric, first.value, first.unit) == ("top1_k10", 100.0, "%")
    assert first.protocol == "knn-1" and first.seconds > 0
    assert first.model_hash == encoder.content_hash()


def test_a_class_without_training_images_is_an_error(encoder, root, cpu):
    shutil.rmtree(root / "train" / "red")
    with pytest.raises(DataError, match="red"):
        run(encoder, root, cpu)


def test_evaluating_twice_gives_the_same_and_a_changed_image_another_data_hash(encoder, root, cpu):
    def facts(results):
        return [dataclasses.replace(result, seconds=0.0) for result in results]

    first = run(encoder, root, cpu)
    assert facts(run(encoder, root, cpu)) == facts(first)
    Image.new("RGB", (9, 9)).save(root / "test" / "red" / "0.png")
    assert run(encoder, root, cpu)[0].data_hash != first[0].data_hash


def test_two_evaluations_share_the_features(encoder, root, cpu, tmp_path):
    plugin(tmp_path, "norm-shared", PLUGIN_EVALUATION)
    run(encoder, root, cpu, evals=["knn", "norm-shared"])
    assert encoder.calls == 2  # one batch of training images, one of test images


def test_the_first_k_is_reported_first_and_another_temperature_is_named(encoder, root, cpu):
    options = options_type()(workers=0, knn=KnnConfig(ks=(7, 2), temperature=0.5))
    results = run(encoder, root, cpu, options=options)
    assert [result.metric for result in results] == ["top1_k7", "top5_k7", "top1_k2", "top5_k2"]
    assert {result.protocol for result in results} == {"knn-1 temperature=0.5"}


def test_when_every_k_is_too_large_the_metric_says_that_all_images_vote(encoder, root, cpu):
    options = options_type()(workers=0, knn=KnnConfig(ks=(200, 100)))
    assert [result.metric for result in run(encoder, root, cpu, options=options)] == [
        "top1_k18_all",
        "top5_k18_all",
    ]


def test_bf16_is_named_in_the_protocol(encoder, root, cpu):
    assert run(encoder, root, cpu, options=EvalOptions(workers=0, precision="bf16"))[0].protocol == (
        "knn-1 precision=bf16"
    )


def test_an_unknown_evaluation_is_refused_before_anything_is_encoded(encoder, root, cpu):
    with pytest.raises(ConfigError, match="did you mean knn"):
        run(encoder, root, cpu, evals=["knnn"])
    with pytest.raises(ConfigError, match="unknown data set"):
        run(encoder, root, cpu, dataset="nowhere")
    assert encoder.calls == 0


def test_a_plugin_adds_an_evaluation_with_settings_of_its_own(encoder, root, cpu, tmp_path):
    plugin(tmp_path, "norm-one", PLUGIN_EVALUATION)
    options = tyro.cli(options_type(), args=["--norm-one.factor", "2", "--knn.ks", "3", "--workers", "0"])
    norm, top1, _ = run(encoder, root, cpu, evals=["norm-one", "knn"], options=options)
    (plain,) = run(encoder, root, cpu, evals=["norm-one"])
    assert norm.value == pytest.approx(2 * plain.value)
    assert (norm.metric, norm.unit, norm.higher_is_better) == ("norm", "", False)
    assert top1.metric == "top1_k3"


def test_a_plugin_adds_a_data_set(encoder, root, cpu, tmp_path):
    plugin(tmp_path, "squares-one", PLUGIN_DATASET)
    (root / "train").rename(root / "learn")
    (root / "test").rename(root / "judge")
    result = run(encoder, root, cpu, dataset="squares-one")[0]
    assert (result.dataset, result.value) == ("squares-one", 100.0)


def test_listing_evaluations_and_their_settings_imports_nothing_heavy():
    code = """
import sys
from unic.evals.registry import EVALUATIONS, options_type
assert len([EVALUATIONS[name] for name in EVALUATIONS]) >= 6
options_type()()
print(*sorted({"torch", "sklearn", "optuna", "timm", "numpy"} & set(sys.modules)))
"""
    listed = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert listed.stdout.split() == []


OF_LABELLED_IMAGES = [name for name in EVALUATIONS if EVALUATIONS[name].task == "classification"]


@pytest.mark.parametrize("name", [name for name in OF_LABELLED_IMAGES if name != "zero-shot"])  # needs texts
def test_every_evaluation_gives_results_that_survive_json(name, encoder, root, cpu):
    results = run(encoder, root, cpu, evals=[name])
    assert results and EVALUATIONS[name].description
    for result in results:
        assert Result.from_json(result.to_json()) == result


def test_a_result_is_one_line_of_json():
    line = RESULT.to_json()
    assert "\n" not in line
    assert json.loads(line)["value"] == 71.5
    assert Result.from_json(line) == RESULT


def test_a_result_that_is_not_a_number_is_never_written():
    with pytest.raises(ValueError, match="not JSON compliant"):
        dataclasses.replace(RESULT, value=float("nan")).to_json()


def test_a_line_with_another_field_is_refused():
    with pytest.raises(ConfigError, match="vlaue"):
        Result.from_json(RESULT.to_json().replace('"value"', '"vlaue"'))


def test_a_batch_of_nothing_is_refused():
    with pytest.raises(ConfigError, match="batch size 0"):
        EvalOptions(batch_size=0)
