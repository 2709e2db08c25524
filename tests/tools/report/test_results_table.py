import io

from rich.console import Console

from unic.tools.report.results_table import print_results, reported, results_table, to_markdown


def record(model: str, value: float, dataset: str = "dtd", metric: str = "top1_k20", **more) -> dict:
    return {
        "model": model,
        "dataset": dataset,
        "evaluation": "knn",
        "metric": metric,
        "value": value,
        "unit": "%",
        "higher_is_better": True,
        "protocol": "knn-1",
    } | more


RESULTS = [
    record("student", 72.5),
    record("dino", 70.0),
    record("ibot", 71.25),
    record("student", 60.0, "eurosat"),
    record("dino", 64.0, "eurosat"),
]


def printed(table) -> str:
    text = io.StringIO()
    Console(file=text, width=200).print(table)
    return text.getvalue()


def test_markdown_has_models_as_rows_measures_as_columns_and_the_best_in_bold():
    assert to_markdown(RESULTS).splitlines() == [
        "| model | dtd<br>knn top1_k20<br>% | eurosat<br>knn top1_k20<br>% |",
        "| :-- | --: | --: |",
        "| student | **72.5** | 60.0 |",
        "| dino | 70.0 | **64.0** |",
        "| ibot | 71.2 | – |",  # noqa: RUF001
    ]


def test_baselines_come_first_and_the_others_show_their_difference_to_the_best_of_them():
    lines = to_markdown(RESULTS, baselines=["dino", "ibot"]).splitlines()
    assert lines[2].startswith("| dino | 70.0 | **64.0**")
    assert lines[4] == "| student | **72.5 (+1.2)** | 60.0 (-4.0) |"
    assert "difference to the best of dino, ibot" in lines[-1]


def test_lower_is_better_where_the_record_says_so():
    depth = {"evaluation": "depth", "unit": "m", "higher_is_better": False}
    results = [record("a", 0.4, metric="rmse", **depth), record("b", 0.45, metric="rmse", **depth)]
    text = to_markdown(results, baselines=["b"])
    assert "**0.400 (-0.050)**" in text and "m ↓" in text and "lower is better" in text


def test_other_protocols_are_other_columns():
    results = [record("a", 70.0), record("b", 90.0, protocol="knn-1 precision=bf16")]
    header, _, first, second = to_markdown(results).splitlines()
    assert "knn-1 precision=bf16" in header and "<br>knn-1 " in header
    assert first == "| a | **70.0** | – |"  # noqa: RUF001
    assert second == "| b | – | **90.0** |"  # noqa: RUF001


def test_a_number_measured_again_replaces_the_earlier_one():
    assert "| a | **71.0** |" in to_markdown([record("a", 70.0), record("a", 71.0)])


def test_ties_are_all_in_bold_and_values_that_are_no_numbers_are_left_out():
    text = to_markdown([record("a", 70.0), record("b", 70.0), record("c", float("nan"))])
    assert text.count("**70.0**") == 2 and "nan" not in text


def test_only_model_and_value_names_are_needed():
    assert "**70.0**" in to_markdown([{"model": "a", "dataset": "d", "metric": "m", "value": 70}])


def test_the_spread_over_seeds_stands_beside_its_number():
    results = [
        record("a", 70.0),
        record("a", 0.25, metric="top1_k20_std", higher_is_better=False),
        record("b", 60.0),
    ]
    assert "| a | **70.0 ± 0.2** |" in to_markdown(reported(results))
    assert "std" not in to_markdown(reported(results))


def test_a_table_too_wide_for_the_terminal_is_turned_and_nothing_is_cut(capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "80")
    sets = ["eurosat", "imagenet_a", "imagenet_r", "imagenet_sketch", "flowers", "pets", "dtd", "aircraft"]
    results = [record(model, 60.0 + i, name) for model in ("dino", "student") for i, name in enumerate(sets)]
    print_results(results, ["dino"])
    lines = capsys.readouterr().out.splitlines()
    for i, name in enumerate(sets):
        assert any(name in line and f"{60 + i}.0 (+0.0)" in line for line in lines), name
    assert all(len(line) <= 80 and "…" not in line for line in lines)


def test_nothing_at_all_is_an_empty_table():
    assert to_markdown([]).startswith("| model |")
    assert "model" in printed(results_table([]))


def test_the_terminal_shows_the_same_numbers_and_names_with_brackets():
    text = printed(results_table([*RESULTS, record("timm:[vit]|x", 1.0)], baselines=["dino"]))
    for part in ("student", "72.5 (+2.5)", "64.0", "timm:[vit]|x", "eurosat"):
        assert part in text
    assert "timm:[vit]\\|x" in to_markdown([record("timm:[vit]|x", 1.0)])


def test_reported_keeps_the_first_metric_of_each_evaluation():
    results = [record("a", 1.0), record("a", 2.0, metric="top5_k20"), record("b", 3.0)]
    assert [r["value"] for r in reported(results)] == [1.0, 3.0]
