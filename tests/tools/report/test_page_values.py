"""The numbers behind the page: relative values, thinned curves, panels, differences between recipes."""

import math
import random

import pytest

from unic.core.errors import ConfigError
from unic.core.results import StoredResult
from unic.tools.report.chart_data import colours, relative_chart
from unic.tools.report.choose_baselines import choose_baselines
from unic.tools.report.comparison import Comparison, compare, ratio
from unic.tools.report.curve_data import in_order, panels, series, thinned
from unic.tools.report.table_data import MISSING, flat, split_by_difference


def result(model: str, value: float, dataset: str = "dtd", **more) -> StoredResult:
    fields = {"model": model, "dataset": dataset, "evaluation": "knn", "metric": "top1", "value": value}
    return StoredResult(**fields | more)


def relative(results: list[StoredResult], baselines: list[str]) -> Comparison:
    return compare(results, baselines).relative()


DEPTH = {"metric": "rmse", "unit": "m", "higher_is_better": False}
RESULTS = [
    result("dino", 50.0), result("ibot", 40.0), result("student", 60.0),
    result("dino", 0.5, "nyud", **DEPTH), result("ibot", 0.4, "nyud", **DEPTH), result("student", 0.8, "nyud", **DEPTH),
]  # fmt: skip


def test_values_are_relative_to_the_best_teacher_and_turned_round_where_less_is_better():
    comparison = relative(RESULTS, ["dino", "ibot"])
    assert comparison.baselines == ["dino", "ibot"]
    # 60 of the 50 of dino; 0.4 of ibot by 0.8.
    assert comparison.percents("student") == pytest.approx([120.0, 50.0])
    assert comparison.percents("dino") == pytest.approx([100.0, 80.0])
    assert comparison.percents("ibot") == pytest.approx([80.0, 100.0])
    assert comparison.mean_percent("student") == pytest.approx(85.0)


def test_without_a_teacher_the_best_encoder_is_the_goal():
    comparison = relative(RESULTS, ["not measured"])
    assert not comparison.baselines
    assert comparison.percents("student") == pytest.approx([100.0, 50.0])


@pytest.mark.parametrize(
    ("value", "goal"), [(-1.0, 2.0), (2.0, 0.0), (math.nan, 1.0), (None, 1.0), (0.0, 1.0)]
)
def test_there_is_no_ratio_of_what_is_missing_zero_or_negative(value, goal):
    assert ratio(value, goal, True) is None and ratio(value, goal, False) is None


def test_an_evaluation_that_no_teacher_has_is_no_axis_and_a_mean_needs_every_axis():
    comparison = relative([*RESULTS, result("student", 30.0, "only")], ["dino", "ibot"])
    assert [column.dataset for column in comparison.columns] == ["dtd", "nyud"]
    comparison = relative([*RESULTS, result("dino", 30.0, "other")], ["dino", "ibot"])
    assert comparison.percents("student")[-1] is None and comparison.mean_percent("student") is None


def test_of_a_model_measured_twice_the_later_value_counts_even_when_it_is_no_number():
    percents = relative([*RESULTS, result("student", 45.0)], ["dino"]).percents("student")
    assert percents[0] == pytest.approx(90.0)
    assert relative([*RESULTS, result("student", math.nan)], ["dino"]).percents("student")[0] is None


def test_numbers_of_other_images_are_never_compared():
    results = [result("dino", 50.0, data_hash="a" * 64), result("student", 60.0, data_hash="b" * 64)]
    comparison = compare(results, ["dino"])
    headers = [comparison.header(column)[-1] for column in comparison.columns]
    assert headers == ["data aaaaaaaa", "data bbbbbbbb"]
    cells = comparison.rows["student"]
    assert cells[0].value is None and cells[1].difference is None


def test_students_are_ranked_by_their_mean_and_untrained_ones_are_none():
    results = [
        *RESULTS,
        result("better", 99.0),
        result("better", 0.3, "nyud", **DEPTH),
        result("student untrained", 9.0),
    ]
    assert relative(results, ["dino", "ibot"]).ranked_students() == ["better", "student"]


def test_baselines_are_the_teachers_of_the_recipes_whatever_options_they_had():
    results = [result(model, 1.0) for model in ("dino", "dinov2_vitb14_reg", "student")]
    assert choose_baselines(results, ["dino?image_size=96"]) == ["dino"]
    assert choose_baselines(
        [result("seven", 1.0, reference="file:/runs/seven/encoder.safetensors")], ["file:/x/seven.pt"]
    ) == ["seven"]


def test_without_a_recipe_teachers_are_known_by_their_reference_or_name():
    results = [
        result("efficientnet_lite0", 1.0), result("mine", 1.0, reference="timm:resnet10t?pretrained=0"),
        result("student", 1.0, reference="runs/student"), result("odd?name:[x]", 1.0),
    ]  # fmt: skip
    assert choose_baselines(results, []) == ["efficientnet_lite0", "mine"]
    assert choose_baselines(results, ["dino"]) == [
        "efficientnet_lite0",
        "mine",
    ]  # the teacher was not measured


def test_a_baseline_can_be_any_model_with_a_result():
    assert choose_baselines(RESULTS, ["dino"], "student") == ["student"]
    with pytest.raises(ConfigError, match="unknown baseline 'studnet'; did you mean student"):
        choose_baselines(RESULTS, ["dino"], "studnet")


def test_there_is_a_radar_from_three_evaluations_and_dots_below():
    def kind(sets: int, models: int) -> str | None:
        results = [result(f"m{m}", 1.0 + m, f"set{s}") for s in range(sets) for m in range(models)]
        chart = relative_chart(compare(results), {})
        return chart and chart.kind

    assert [kind(sets, 2) for sets in (0, 1, 2, 3, 24, 25)] == [
        None,
        "dots",
        "dots",
        "radar",
        "radar",
        "dots",
    ]
    assert kind(5, 1) is None  # nothing to compare with


def test_a_single_student_is_black_and_several_have_colours_that_no_teacher_has():
    assert colours(["dino", "ibot"], ["dino", "student"]) == {"dino": 0, "ibot": 1, "student": -1}
    several = colours(["dino"], ["a", "b", "a untrained"])
    assert several["dino"] == 0 and {several["a"], several["b"]} == {1, 2}


@pytest.mark.parametrize("count", [601, 999, 12_345])
def test_a_thinned_curve_keeps_its_ends_its_extremes_and_its_order(count):
    rng = random.Random(count)
    values = [rng.gauss(0, 1) for _ in range(count)]
    values[count // 3], values[count // 2] = 50.0, -50.0
    steps, chosen = thinned((list(range(count)), values), 600)
    assert len(steps) <= 602
    assert steps[0] == 0 and steps[-1] == count - 1 and steps == sorted(set(steps))
    assert max(chosen) == 50.0 and min(chosen) == -50.0
    assert all(values[step] == value for step, value in zip(steps, chosen, strict=True))


def test_every_stretch_of_a_thinned_curve_keeps_its_least_and_greatest_value():
    values = [math.sin(step / 7) * (1 + step % 5) for step in range(5000)]
    steps, chosen = thinned((list(range(5000)), values), 100)
    for start in range(0, 5000, 500):  # ten stretches of fifty together
        here = [v for s, v in zip(steps, chosen, strict=True) if start <= s < start + 500]
        assert max(here) == max(values[start : start + 500]) and min(here) == min(values[start : start + 500])


def test_a_short_curve_is_not_thinned_and_a_gap_stays_a_gap():
    curve = ([0, 1, 2], [1.0, math.nan, 3.0])
    assert thinned(curve, 600) == curve
    values = [math.nan if 4000 <= step < 6000 else 1.0 for step in range(10_000)]
    _, chosen = thinned((list(range(10_000)), values), 60)
    assert any(map(math.isnan, chosen)) and not all(map(math.isnan, chosen))


def test_records_are_ordered_by_step_joined_and_null_becomes_a_gap():
    records = [
        {"step": 2, "loss": None},
        {"step": 1, "loss": 1.0},
        {"step": 1, "val/loss": 2.0},
        {"note": "no step"},
    ]
    ordered = in_order([*records, {"step": 3, "loss": math.inf}, {"step": "?", "loss": 0.5}])
    assert [r["step"] for r in ordered] == [1, 2, 3]
    steps, values = series([*ordered, {"loss": 0.5}])["loss"]
    assert steps == [1, 2, 3] and values[0] == 1.0 and all(map(math.isnan, values[1:]))
    assert ordered[0]["val/loss"] == 2.0


def test_every_number_of_a_run_has_a_place_in_exactly_one_panel():
    teachers = ("dino", "hf-hub:org/ibot")
    keys = ["loss", "val/loss", "lr", "rate", "grad_norm", "images_per_second", "fidelity/knn", "new/number"]
    for teacher in teachers:
        keys += [f"kept/{teacher}", f"fidelity/{teacher}/knn"]
        for token in ("cls", "patches"):
            keys += [f"loss/{teacher}/{token}", f"val/loss/{teacher}/{token}"]
            keys += [f"fidelity/{teacher}/{token}/{what}" for what in ("explained", "cosine")]
    keys += ["fidelity/rank/cls", "fidelity/rank/patches"]
    found = panels(["step", "epoch", *keys])
    assert sorted(curve.key for panel in found for curve in panel.curves) == sorted(keys)
    by_title = {panel.title: panel for panel in found}
    assert [curve.label for curve in by_title["Loss"].curves][:2] == ["training", "validation"]
    assert {curve.teacher for curve in by_title["Explained variance of the teachers"].curves} == set(teachers)
    assert [curve.label for curve in by_title["Effective rank of the student"].curves] == ["cls", "patches"]
    assert by_title["k-NN accuracy while training"].curves[0].key == "fidelity/knn"
    assert {(curve.teacher, curve.token) for curve in by_title["Loss"].curves[2:]} == {
        (teacher, token) for teacher in teachers for token in ("cls", "patches")
    }
    assert [panel.title for panel in panels(["loss/dino", "loss"])] == ["Loss", "loss/dino"]


def test_only_fields_that_differ_are_told_apart_and_a_missing_one_is_named():
    first = {"seed": 0, "optim": {"lr": 0.1, "betas": [0.9, 0.99]}, "old": {}}
    second = {"seed": 0, "optim": {"lr": 0.2, "betas": [0.9, 0.99]}, "new": None}
    shared, differing = split_by_difference([first, second])
    assert shared == {"seed": 0, "optim.betas": [0.9, 0.99]}
    assert differing == {"optim.lr": [0.1, 0.2], "old": [{}, MISSING], "new": [MISSING, None]}
    assert flat({"a": {"b": {"c": 1}}, "d": [1]}) == {"a.b.c": 1, "d": [1]}


def test_one_recipe_alone_differs_in_nothing():
    assert split_by_difference([{"a": 1}]) == ({"a": 1}, {})
    assert split_by_difference([]) == ({}, {})
