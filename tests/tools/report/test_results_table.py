import csv
import io
import re

from rich.console import Console

from unic.core.results import StoredResult
from unic.tools.report.comparison import compare
from unic.tools.report.results_table import no_formula, print_results, results_table, to_csv, to_markdown


def result(model: str, value: float, dataset: str = "dtd", metric: str = "top1_k20", **more) -> StoredResult:
    fields = {"evaluation": "knn", "protocol": "knn-1"} | more
    return StoredResult(model=model, dataset=dataset, metric=metric, value=value, **fields)


def markdown(results: list[StoredResult], baselines: list[str] | None = None) -> str:
    return to_markdown(compare(results, baselines or []))


RESULTS = [
    result("student", 72.5),
    result("dino", 70.0),
    result("ibot", 71.25),
    result("student", 60.0, "eurosat"),
    result("dino", 64.0, "eurosat"),
]


def printed(table) -> str:
    text = io.StringIO()
    Console(file=text, width=200).print(table)
    return text.getvalue()


def test_markdown_has_models_as_rows_measures_as_columns_and_the_best_in_bold():
    assert markdown(RESULTS).splitlines() == [
        "| model | dtd<br>knn top1_k20<br>% | eurosat<br>knn top1_k20<br>% |",
        "| :-- | --: | --: |",
        "| student | **72.5** | 60.0 |",
        "| dino | 70.0 | **64.0** |",
        "| ibot | 71.2 | – |",  # noqa: RUF001
    ]


def test_baselines_come_first_and_the_others_show_their_difference_to_the_best_of_them():
    lines = markdown(RESULTS, ["dino", "ibot"]).splitlines()
    assert lines[2].startswith("| dino | 70.0 | **64.0**")
    assert lines[4] == "| student | **72.5 (+1.2)** | 60.0 (-4.0) |"
    assert "difference to the best of dino, ibot" in lines[-1]


def test_lower_is_better_where_the_result_says_so():
    depth = {"evaluation": "depth", "unit": "m", "higher_is_better": False}
    results = [result("a", 0.4, metric="rmse", **depth), result("b", 0.45, metric="rmse", **depth)]
    text = markdown(results, ["b"])
    assert "**0.400 (-0.050)**" in text and "m ↓" in text and "lower is better" in text


def test_other_protocols_are_other_columns():
    results = [result("a", 70.0), result("b", 90.0, protocol="knn-1 precision=bf16")]
    header, _, first, second = markdown(results).splitlines()
    assert "knn-1 precision=bf16" in header and "<br>knn-1 " in header
    assert first == "| a | **70.0** | – |"  # noqa: RUF001
    assert second == "| b | – | **90.0** |"  # noqa: RUF001


def test_ties_are_all_in_bold_and_values_that_are_no_numbers_are_left_out():
    text = markdown([result("a", 70.0), result("b", 70.0), result("c", float("nan"))])
    assert text.count("**70.0**") == 2 and "nan" not in text


def test_only_model_and_value_names_are_needed():
    bare = StoredResult.from_record({"model": "a", "dataset": "d", "metric": "m", "value": 70})
    assert bare is not None and "**70.0**" in markdown([bare])


def test_the_spread_over_seeds_stands_beside_its_number():
    results = [
        result("a", 70.0),
        result("a", 0.25, metric="top1_k20_std", higher_is_better=False),
        result("b", 60.0),
    ]
    assert "| a | **70.0 ± 0.2** |" in markdown(results)
    assert "std" not in markdown(results)


def test_a_table_too_wide_for_the_terminal_is_turned_and_nothing_is_cut(capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "80")
    sets = ["eurosat", "imagenet_a", "imagenet_r", "imagenet_sketch", "flowers", "pets", "dtd", "aircraft"]
    results = [result(model, 60.0 + i, name) for model in ("dino", "student") for i, name in enumerate(sets)]
    print_results(results, ["dino"])
    lines = capsys.readouterr().out.splitlines()
    for i, name in enumerate(sets):
        assert any(name in line and f"{60 + i}.0 (+0.0)" in line for line in lines), name
    assert all(len(line) <= 80 and "…" not in line for line in lines)


def test_nothing_at_all_is_an_empty_table():
    assert markdown([]).startswith("| model |")
    assert "model" in printed(results_table(compare([])))


def test_the_terminal_shows_the_same_numbers_and_names_with_brackets():
    text = printed(results_table(compare([*RESULTS, result("timm:[vit]|x", 1.0)], ["dino"])))
    for part in ("student", "72.5 (+2.5)", "64.0", "timm:[vit]|x", "eurosat"):
        assert part in text
    assert "timm:[vit]\\|x" in markdown([result("timm:[vit]|x", 1.0)])


def test_the_main_columns_are_the_first_metric_of_each_evaluation():
    results = [result("a", 1.0), result("a", 2.0, metric="top5_k20"), result("b", 3.0)]
    main = compare(results).main()
    assert [column.metric for column in main.columns] == ["top1_k20"]
    assert {model: [cell.value for cell in cells] for model, cells in main.rows.items()} == {
        "a": [1.0],
        "b": [3.0],
    }


FORMULA = '=HYPERLINK("http://x","y")'


def test_no_name_is_a_formula_in_a_spreadsheet_and_a_negative_number_stays_a_number():
    for text in ("=1", "+1", "-1", "@x", "\tx", "\rx"):
        assert no_formula(text) == f"'{text}"
    assert no_formula("vit-b=1") == "vit-b=1" and no_formula("") == ""
    results = [result(FORMULA, -3.5, "@data", metric="-top1", protocol="+p", unit="\tm", evaluation="=knn")]
    (row,) = csv.DictReader(io.StringIO(to_csv(compare(results))))
    assert row["model"] == f"'{FORMULA}" and row["value"] == "-3.5"
    assert [row[name] for name in ("dataset", "evaluation", "metric", "protocol", "unit")] == [
        "'@data", "'=knn", "'-top1", "'+p", "'\tm",
    ]  # fmt: skip


def test_no_name_breaks_a_row_of_markdown_or_becomes_html_or_a_link():
    names = ["a|b", "two\nlines", "<img src=x>", "[click](javascript:alert(1))", "back\\|slash"]
    results = [result(name, 1.0, name, metric=name) for name in names]
    text = markdown([*results, result("b", 2.0, names[1], metric=names[1])], [names[1]])
    lines = text.splitlines()
    assert len(lines) == 3 + len(names) + 2, "a row for each name, a blank line and the caption"
    bars = {len(re.findall(r"(?<!\\)(?:\\\\)*\|", line)) for line in lines[: 3 + len(names)]}
    assert bars == {2 + len(names)}, "as many cells in every row"
    assert "<img" not in text and "](" not in text and "two lines" in text and "a\\|b" in text
