"""Files written by commit 53591b4, before rooms and names changed, are read as they were meant.

tests/stored/run is what these wrote (paths made neutral):
    unic distill debug --data.root IMAGES --speed.kernels plain --data.views.pixels plain --optim.epochs 0.05
        --optim.warmup-epochs 0.01 --ladder.hidden 8 --ladder.last-hidden 8 --student.width 16 --student.depth 2
    unic evaluate run --data-root LABELLED
The literals below are what `unic.load` of that commit gave.
"""

import json
import shutil
from pathlib import Path

import pytest
import torch

import unic
from unic.core.dataclass_json import from_dict, read_json, to_dict
from unic.core.results import read_results
from unic.core.run_folder import RunDir, open_run
from unic.teachers.load import load_teacher
from unic.train.build_run import build_step
from unic.train.checkpoint import load_checkpoint
from unic.train.recipe import FREE_TO_CHANGE, Recipe

RUN = Path(__file__).parent / "stored" / "run"


@pytest.fixture(scope="module")
def image() -> torch.Tensor:
    return (torch.arange(3 * 32 * 32) * 7919 % 256).to(torch.uint8).view(1, 3, 32, 32)


def test_the_encoder_gives_the_features_it_gave(image: torch.Tensor):
    for place in (RUN, RUN / "encoder.safetensors"):
        tokens = unic.load(place)(image)
        cls = [-0.9102854, 0.8522002, -1.5666825, -0.7869682, 0.0832772, 0.4436037]
        assert tokens.cls[0, :6].tolist() == pytest.approx(cls, abs=1e-5)
        assert tokens.patches[0, 5, :4].tolist() == pytest.approx(
            [0.3408388, -0.5262206, 0.3283032, 1.5931621], abs=1e-5
        )


def test_so_does_the_head_of_its_teacher(image: torch.Tensor):
    head = unic.load(RUN, head="resnet10t")
    assert head(image).cls[0, 2:4].tolist() == pytest.approx([0.02556477, 0.12363675], abs=1e-6)


def test_its_fingerprint_is_the_one_in_its_results():
    """Features, classifiers and heads in the cache are found by it."""
    wanted = "e45d9c36ea51aa5194d0e73534803c1e0258fd8ea09c6f46d34bcf3f3601a348"
    results, remarks = read_results(RUN / "results.jsonl")
    assert not remarks
    assert unic.load(RUN).content_hash() == wanted
    assert {result.model_hash for result in results} == {wanted}
    assert [(r.metric, r.value, r.protocol) for r in results] == [
        ("top1_k10", 62.5, "knn-1"),
        ("top5_k10", 100.0, "knn-1"),
    ]


def test_its_recipe_is_read_with_the_words_of_then():
    stored = read_json(RUN / "config.json")
    assert stored["speed"]["kernels"] == stored["data"]["views"]["pixels"] == "plain"
    recipe = from_dict(Recipe, stored)
    assert recipe.speed.kernels == recipe.data.views.pixels == "exact"
    stored["speed"]["kernels"] = stored["data"]["views"]["pixels"] = "exact"
    assert to_dict(recipe) == stored


def test_its_folder_is_opened_again_by_the_same_recipe(tmp_path: Path):
    folder = shutil.copytree(RUN, tmp_path / "run")
    config = to_dict(from_dict(Recipe, read_json(folder / "config.json")))
    complete = lambda stored: to_dict(from_dict(Recipe, stored))  # noqa: E731
    with open_run(folder, config, free_to_change=FREE_TO_CHANGE, complete=complete) as run:
        assert isinstance(run, RunDir)
        assert [record["step"] for record in run.read("metrics.jsonl")] == list(range(1, 9))
    assert json.loads((folder / "config.json").read_text())["speed"]["kernels"] == "exact"


def test_its_checkpoint_is_loaded_whole(tmp_path: Path):
    shutil.copytree(RUN / "checkpoints", tmp_path / "checkpoints")
    recipe = from_dict(Recipe, read_json(RUN / "config.json"))
    context, state = build_step(recipe, torch.device("cpu"), steps_per_epoch=160)
    assert load_checkpoint(tmp_path / "checkpoints", state, set_aside=False) is not None
    trained = [parameter for parameter in state.student.parameters() if parameter.requires_grad]
    assert state.step == 8 and context.teacher_names == ["resnet10t"]
    assert set(state.optimizer.state) == set(trained)
    assert all(
        set(moments) == {"step", "exp_avg", "exp_avg_sq"} for moments in state.optimizer.state.values()
    )
    assert state.standardizers["resnet10t"].cls_mean.ne(0).any()


def test_its_spaces_are_heads_of_the_encoder_as_it_is_called_and_moved_now():
    encoder = unic.load(RUN).replace(name="label")
    ((reference, space),) = encoder.spaces.items()
    head = space(encoder)
    assert head.name == "label@resnet10t" and head.model["encoder"] is encoder
    teacher = load_teacher(reference).replace(name="another")
    assert teacher.spaces[reference](teacher) is teacher
