"""What is measured of a student while it learns: the right numbers, the same images, and nothing moved by it."""

import json
import logging
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import launch
import numpy as np
import pytest
import torch
from PIL import Image
from sklearn.metrics import r2_score

from unic.core.dataclass_json import to_dict
from unic.core.run_folder import RunDir
from unic.data.crop import evaluation_view
from unic.data.sources import read_sources
from unic.evals.knn import knn_predict
from unic.method.representation_metrics import effective_rank, explained_variance
from unic.method.types import Batch
from unic.train import loop, train_step
from unic.train.build_run import build_run, resume
from unic.train.monitor import fidelity
from unic.train.monitor.alarms import behind, collapses
from unic.train.monitor.fidelity import (
    choose_images,
    comparison,
    explained_and_cosine,
    folder_classes,
    knn_accuracy,
    student_tokens,
)
from unic.train.recipe import Recipe

CPU = torch.device("cpu")
NAMES = ("test_convnext", "test_vit")


def draw(seed: int, *shape: int) -> torch.Tensor:
    return torch.tensor(np.random.default_rng(seed).normal(size=shape), dtype=torch.float32)


@pytest.fixture
def looking(short: Recipe, photos: Path, change: Callable[..., Recipe]) -> Recipe:
    """6 steps, looked at in every one of them, on the 5 images of val/."""
    return change(
        short,
        {
            "data": {"val_root": (str(photos / "val"),)},
            "log": {"fidelity_every": 1 / 6, "validate_every": 9.0},
        },
    )


@pytest.fixture
def classes(tmp_path: Path) -> Path:
    """Three folders of 4, 4 and 3 images."""
    rng = np.random.default_rng(1)
    for name, num_images in (("ant", 4), ("bee", 4), ("cat", 3)):
        folder = tmp_path / "classes" / name
        folder.mkdir(parents=True)
        for i in range(num_images):
            Image.fromarray(rng.integers(0, 256, (8, 8, 3), dtype=np.uint8)).resize((36, 36)).save(
                folder / f"{i}.png"
            )
    return tmp_path / "classes"


def of_fidelity(record: dict) -> dict:
    return {name: value for name, value in record.items() if name.startswith("fidelity/")}


def alarms(run: Path) -> list[dict]:
    return [json.loads(line) for line in (run / "alarms.jsonl").read_text().splitlines()]


@pytest.mark.parametrize("splits", [[60], [1, 59], [7] * 8 + [4]])
def test_the_variance_explained_is_that_of_all_tokens_whatever_the_batches(splits: list[int]):
    target = (3 + draw(0, 60, 5) * torch.arange(1.0, 6.0)).double()
    output = target + draw(1, 60, 5)
    parts = zip(output.split(splits), target.split(splits), strict=True)
    explained, cosine = explained_and_cosine(sum(comparison(*part) for part in parts))
    assert explained == pytest.approx(r2_score(target, output, multioutput="variance_weighted"), rel=1e-9)
    assert explained == pytest.approx(explained_variance(output, target), rel=1e-9)
    unit = [
        x / np.linalg.norm(x, axis=1, keepdims=True)
        for x in (output.double().numpy(), target.double().numpy())
    ]
    assert cosine == pytest.approx((unit[0] * unit[1]).sum(1).mean(), rel=1e-9)


def test_a_perfect_student_explains_all_one_that_says_the_mean_nothing_and_a_constant_target_is_met_or_not():
    target = 100 + draw(0, 50, 4)
    assert explained_and_cosine(comparison(target, target)) == pytest.approx((1, 1))
    mean = target.mean(0).expand_as(target)
    assert explained_and_cosine(comparison(mean, target))[0] == pytest.approx(0, abs=1e-8)
    constant = torch.full((7, 4), 0.1)
    assert explained_and_cosine(comparison(constant, constant))[0] == 1
    assert explained_and_cosine(comparison(constant + 1, constant))[0] == 0


def test_a_run_writes_down_what_its_checkpoint_says_of_the_same_images(
    looking, run, metrics, photos, tmp_path
):
    """Derived again from the saved student by its own forward, scikit-learn and NumPy, with images read here."""
    assert run(looking, tmp_path / "run")
    record = metrics(tmp_path / "run")[-1]
    context, state = build_run(looking, RunDir(tmp_path / "run"), CPU)
    resume(context, state)
    student = state.student.eval()
    images = torch.stack([evaluation_view(Image.open(photos / "val" / f"{i}.png"), 32) for i in range(5)])
    batch = Batch(images, torch.arange(5), torch.full((5,), -1))
    with torch.no_grad():
        outputs, own = student(images), student.encoder(images)
        for name in NAMES:
            target = state.standardizers[name](context.teachers(batch)[name])
            pairs = {
                "cls": (outputs[name].cls, target.cls),
                "patches": (outputs[name].patches.flatten(0, 1), target.patches.flatten(0, 1)),
            }
            for token, (output, wanted) in pairs.items():
                output, wanted = output.double().numpy(), wanted.double().numpy()
                explained = 1 - ((output - wanted) ** 2).sum() / ((wanted - wanted.mean(0)) ** 2).sum()
                assert record[f"fidelity/{name}/{token}/explained"] == pytest.approx(explained, abs=1e-6)
                cosines = (
                    (output * wanted).sum(1) / np.linalg.norm(output, axis=1) / np.linalg.norm(wanted, axis=1)
                )
                assert record[f"fidelity/{name}/{token}/cosine"] == pytest.approx(cosines.mean(), abs=1e-6)
    assert record["fidelity/rank/cls"] == pytest.approx(effective_rank(own.cls), rel=1e-4)
    assert 1 < record["fidelity/rank/patches"] < 32
    assert not any(name.endswith("knn") for name in record)


def test_one_pass_gives_what_the_released_encoder_and_the_ladder_give(looking, tmp_path):
    _, state = build_run(looking, RunDir(tmp_path), CPU)
    student = state.student.eval()
    images = torch.randint(0, 256, (3, 3, 32, 32), dtype=torch.uint8)
    with torch.no_grad():
        own, outputs = student_tokens(student, images)
        torch.testing.assert_close(own, student.encoder(images))
        torch.testing.assert_close(outputs, student(images))


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_a_run_with_and_one_without_have_the_same_bits(
    precision, looking, run, change, state_of, metrics, tmp_path
):
    looking = change(looking, {"speed": {"precision": precision}})
    assert run(looking, tmp_path / "with")
    for name, never in (("none", None), ("zero", 0.0)):
        assert run(change(looking, {"log": {"fidelity_every": never}}), tmp_path / name)
        assert not any(of_fidelity(line) for line in metrics(tmp_path / name))
        for step in (1, 6):
            one, other = state_of(tmp_path / "with", step), state_of(tmp_path / name, step)
            assert all(torch.equal(tensor, other[key]) for key, tensor in one.items())
    lines = metrics(tmp_path / "with")
    assert [bool(of_fidelity(line)) for line in lines] == [True] * 6


def test_a_run_that_was_stopped_ends_with_the_same_bits_metrics_and_alarms(
    looking, run, collapsing, state_of, metrics, tmp_path
):
    """Stopped after steps 4 and 5, while the student lies collapsed: its alarm is not raised again."""
    collapsing(range(3, 6))
    assert run(looking, tmp_path / "whole")
    expected = alarms(tmp_path / "whole")
    for step in (4, 5):
        shutil.copytree(tmp_path / "whole", tmp_path / f"from {step}")
        for later in range(step + 1, 7):
            shutil.rmtree(tmp_path / f"from {step}" / "checkpoints" / f"step-0000000{later}")
        assert run(looking, tmp_path / f"from {step}")
        assert metrics(tmp_path / f"from {step}") == metrics(tmp_path / "whole")
        assert alarms(tmp_path / f"from {step}") == expected
        one, other = state_of(tmp_path / "whole"), state_of(tmp_path / f"from {step}")
        assert all(torch.equal(tensor, other[key]) for key, tensor in one.items())
    # Taken up before it, the alarm is cut and raised again.
    for later in range(4, 7):
        shutil.rmtree(tmp_path / "whole" / "checkpoints" / f"step-0000000{later}")
    assert run(looking, tmp_path / "whole")
    assert alarms(tmp_path / "whole") == expected


@pytest.fixture
def collapsing(monkeypatch):
    """Lets a student have no weights after certain steps, and its own again after the others."""

    def at(steps: range) -> None:
        def apply_update(state, *arguments, **options):
            real(state, *arguments, **options)
            parameters = list(state.student.encoder.parameters())
            if state.step + 1 == steps.start:
                kept.extend(parameter.detach().clone() for parameter in parameters)
            with torch.no_grad():
                for parameter, own in zip(parameters, kept or parameters, strict=True):
                    if state.step in steps:
                        parameter.zero_()
                    elif state.step == steps.stop:
                        parameter.copy_(own)

        kept: list[torch.Tensor] = []
        real = train_step.apply_update
        monkeypatch.setattr("unic.train.train_step.apply_update", apply_update)

    return at


def test_a_collapse_is_said_once_until_it_is_over(looking, run, change, collapsing, caplog, tmp_path):
    """Twice: after the steps 4 and 5 of 12, and again after 10."""
    caplog.set_level(logging.INFO)
    longer = change(looking, {"optim": {"epochs": 2.0}})
    collapsing(range(3, 5))
    collapsing(range(9, 10))
    assert run(longer, tmp_path / "run")
    found = [
        (line["step"], line["alarm"], line["teacher"], line["token"]) for line in alarms(tmp_path / "run")
    ]
    assert found == [(step, "collapse", None, token) for step in (4, 10) for token in ("cls", "patches")]
    assert all(line["value"] < line["bound"] for line in alarms(tmp_path / "run"))
    said = [r.getMessage() for r in caplog.records if r.levelno == logging.WARNING]
    assert said == [f"step {line['step']}: {line['message']}" for line in alarms(tmp_path / "run")]
    assert caplog.text.count("over: collapse") == 4


def test_a_healthy_run_raises_no_alarm(recipe, run, change, metrics, caplog, tmp_path):
    assert run(change(recipe, {"log": {"fidelity_every": 0.5, "checkpoint_steps": 48}}), tmp_path / "run")
    assert len([line for line in metrics(tmp_path / "run") if of_fidelity(line)]) == 16
    assert alarms(tmp_path / "run") == []
    assert not [r for r in caplog.records if r.levelno >= logging.WARNING]


@pytest.mark.parametrize(
    ("explained", "expected"),
    [
        ({"a": 0.6, "b": 0.25}, {"b": 0.3}),
        ({"a": 0.6, "b": 0.35}, {}),  # more than half of the best
        ({"a": 0.1, "b": 0.02}, {}),  # too close to tell
        ({"a": 0.15, "b": 0.02, "c": 0.14}, {"b": 0.05}),
        ({"a": 0.3, "b": None, "c": -0.1}, {"c": 0.15}),
        ({"a": -0.05, "b": -0.3}, {}),  # nothing is explained of either
        ({"a": None, "b": float("nan")}, {}),
    ],
)
def test_a_teacher_is_left_behind_by_less_than_half_of_the_best_and_by_a_tenth(explained, expected):
    measured = {f"fidelity/{name}/patches/explained": value for name, value in explained.items()}
    found = behind(measured, ("cls", "patches"), list(explained))
    assert {alarm.teacher: pytest.approx(alarm.bound) for alarm in found} == expected
    assert all((alarm.alarm, alarm.token) == ("behind", "patches") for alarm in found)


@pytest.mark.parametrize(
    ("rank", "highest", "fires"),
    [
        (60.0, 100.0, False),
        (24.9, 100.0, True),
        (24.9, 0.0, False),
        (7.0, 0.0, True),
        (0.0, 0.0, True),
        (None, 9.0, False),
    ],
)
def test_a_collapse_is_a_few_directions_of_those_possible_or_of_those_before(rank, highest, fires):
    assert bool(collapses({"cls": rank}, {"cls": highest}, 255)) == fires


def test_the_teacher_whose_projectors_are_taken_away_is_left_behind_once(
    looking, run, change, monkeypatch, caplog, tmp_path
):
    """The other is learnt perfectly: its targets are what the ladder says."""
    real = loop.Fidelity.measure

    def measure(self, state):
        record = real(self, state)
        return record | {"fidelity/test_vit/cls/explained": 0.9}

    monkeypatch.setattr(loop.Fidelity, "measure", measure)
    assert run(looking, tmp_path / "run")
    (line,) = alarms(tmp_path / "run")
    found = line["step"], line["alarm"], line["teacher"], line["token"]
    assert found == (2, "behind", "test_convnext", "cls")
    assert "test_convnext is left behind" in caplog.text


def test_two_processes_see_the_same_as_one(looking, run, config, change, classes, metrics, tmp_path):
    """11 images with classes are 6 and 5 on two processes, in batches of 4 or 2."""
    looking = change(looking, {"data": {"val_root": (str(classes),)}, "log": {"fidelity_every": 0.5}})
    assert run(looking, tmp_path / "alone")
    launch.distill_on_ranks(2, config(looking), tmp_path / "ranks")
    one, other = metrics(tmp_path / "alone"), metrics(tmp_path / "ranks")
    for a, b in zip(one, other, strict=True):
        assert of_fidelity(a) == pytest.approx(of_fidelity(b), rel=1e-4, abs=1e-6)
    assert {"fidelity/knn", "fidelity/test_vit/knn", "fidelity/test_convnext/knn"} < one[-1].keys()


def test_the_number_of_workers_changes_nothing(looking, run, change, metrics, tmp_path):
    few = change(looking, {"log": {"fidelity_images": 3, "fidelity_every": 1.0}})
    assert run(few, tmp_path / "none")
    assert run(change(few, {"speed": {"workers": 1}}), tmp_path / "one")
    assert metrics(tmp_path / "none") == metrics(tmp_path / "one")


def test_more_processes_than_images_wait_for_each_other(looking, config, change, classes, metrics, tmp_path):
    few = change(
        looking,
        {"data": {"val_root": (str(classes),)}, "log": {"fidelity_images": 1, "fidelity_every": 0.5}},
    )
    launch.distill_on_ranks(2, config(few), tmp_path / "run")
    record = metrics(tmp_path / "run")[-1]
    assert record["fidelity/rank/cls"] == 0  # one image has no spread
    assert alarms(tmp_path / "run") == []


def test_features_that_are_not_kept_are_computed_again_to_the_same_numbers(
    looking, run, metrics, monkeypatch, tmp_path
):
    assert run(looking, tmp_path / "kept")
    monkeypatch.setattr(fidelity, "_MAX_KEPT", 20_000)  # one of the two batches
    assert run(looking, tmp_path / "again")
    assert metrics(tmp_path / "kept") == metrics(tmp_path / "again")


def test_unreadable_images_are_left_out_and_without_any_there_is_nothing_to_say(
    looking, run, change, photos, metrics, caplog, tmp_path
):
    images = shutil.copytree(photos / "val", tmp_path / "images")
    (images / "5.png").write_bytes(b"spoilt")
    looking = change(looking, {"data": {"val_root": (str(photos / "val"),)}})
    spoilt = change(looking, {"data": {"val_root": (str(images),)}})
    assert run(looking, tmp_path / "whole")
    assert run(spoilt, tmp_path / "spoilt")
    ends = [of_fidelity(metrics(tmp_path / name)[-1]) for name in ("whole", "spoilt")]
    assert {n: v for n, v in ends[0].items() if "rank" not in n} == pytest.approx(
        {n: v for n, v in ends[1].items() if "rank" not in n}, rel=1e-6
    )
    for path in images.iterdir():
        path.write_bytes(b"spoilt")
    assert run(spoilt, tmp_path / "none")
    assert not any(of_fidelity(line) for line in metrics(tmp_path / "none"))
    assert "fidelity cannot be measured: none of its 6 images can be read" in caplog.text


def test_without_held_out_images_training_images_are_looked_at_and_the_log_says_so(
    short, run, change, classes, metrics, caplog, tmp_path
):
    caplog.set_level(logging.INFO)
    recipe = change(short, {"data": {"root": (str(classes),)}, "optim": {"epochs": 3.0}})
    assert run(recipe, tmp_path / "run")
    assert "on 11 training images (data.val_root is empty)" in caplog.text
    lines = [line for line in metrics(tmp_path / "run") if of_fidelity(line)]
    assert [line["step"] for line in lines] == [2, 4, 6]
    assert len({line["fidelity/test_vit/knn"] for line in lines}) == 1


def test_a_run_from_before_there_was_fidelity_is_taken_up(short, run, tmp_path, metrics):
    assert run(short, tmp_path / "run")
    old = to_dict(short)
    del old["log"]["fidelity_every"], old["log"]["fidelity_images"]
    (tmp_path / "run" / "config.json").write_text(json.dumps(old))
    (tmp_path / "run" / "alarms.jsonl").unlink()
    shutil.rmtree(tmp_path / "run" / "checkpoints" / "step-00000006")
    assert run(replace(short, log=replace(short.log, fidelity_images=7)), tmp_path / "run")
    assert of_fidelity(metrics(tmp_path / "run")[-1])


def test_neighbours_vote_as_they_do_in_the_evaluation():
    features, labels = draw(0, 90, 4), torch.arange(90) % 3
    features[:, 0] += 0.7 * labels
    hits = [
        knn_predict(
            torch.cat([features[:i], features[i + 1 :]]), torch.cat([labels[:i], labels[i + 1 :]]), features[i : i + 1],
            ks=(20,), temperature=0.07, num_classes=3, chunk=999,
        )[20][0, 0] == labels[i]
        for i in range(90)
    ]  # fmt: skip
    assert knn_accuracy(features, labels) == pytest.approx(100 * np.mean(hits))
    assert 40 < knn_accuracy(features, labels) < 95


def test_neighbours_of_few_images_are_all_others():
    assert knn_accuracy(torch.eye(2), torch.tensor([0, 1])) == 0
    assert knn_accuracy(torch.tensor([[1.0, 0], [2, 0], [0, 1], [0, 3]]), torch.tensor([0, 0, 1, 1])) == 100


@pytest.mark.parametrize(
    ("of_a_class", "num_classes", "expected"),
    [(1000, 10, {24, 32}), (50, 1000, {8}), (2, 1000, {2}), (30, 3, {30})],
)
def test_images_are_chosen_by_key_and_evenly_over_classes(of_a_class, num_classes, expected):
    classes = [f"class {i}" for i in range(num_classes) for _ in range(of_a_class)]
    chosen = choose_images(len(classes), classes, 256, 0)
    assert len(chosen) == min(256, len(classes)) and (np.diff(chosen) > 0).all()
    counts = np.unique(np.array(classes)[chosen], return_counts=True)[1]
    assert set(counts.tolist()) == expected
    assert np.array_equal(chosen, choose_images(len(classes), classes, 256, 0))
    if len(classes) > 256:
        assert not np.array_equal(chosen, choose_images(len(classes), classes, 256, 1))


def test_without_classes_any_image_may_be_chosen():
    chosen = np.stack([choose_images(40, None, 10, seed) for seed in range(300)])
    assert np.bincount(chosen.ravel(), minlength=40).min() > 40  # 75 expected, deviation 7.5
    assert np.array_equal(choose_images(5, None, 10, 0), np.arange(5))


def test_classes_are_folders_below_the_root_and_nothing_else(classes, photos, tmp_path):
    def found(*roots: Path) -> list[str] | None:
        return folder_classes(read_sources([str(root) for root in roots]), [str(root) for root in roots])

    assert found(classes) == ["ant"] * 4 + ["bee"] * 4 + ["cat"] * 3
    assert found(classes, classes) == 2 * (["ant"] * 4 + ["bee"] * 4 + ["cat"] * 3)
    assert found(photos / "val") is None
    assert found(classes, photos / "val") is None
    assert found(classes / "ant") is None
    (tmp_path / "list.txt").write_text("classes/ant/0.png\nclasses/bee/0.png\n")
    assert found(tmp_path / "list.txt") is None
    one = tmp_path / "one" / "only"
    shutil.copytree(classes / "ant", one)
    assert found(one.parent) is None
