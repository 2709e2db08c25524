"""Lines of results.jsonl: those of any tool or version are read; a number measured again replaces the earlier."""

import json
import math
from pathlib import Path

import pytest

from unic.core.files import parse_lines, read_lines
from unic.core.results import StoredResult, latest, read_results

LINE = {"model": "a", "dataset": "dtd", "metric": "top1", "value": 70.5}


def test_only_model_data_set_and_metric_are_needed_and_the_rest_takes_its_default():
    result = StoredResult.from_record(LINE)
    assert result == StoredResult(model="a", dataset="dtd", metric="top1", value=70.5)
    assert result.unit == "%" and result.higher_is_better and result.seed is None and result.protocol == ""
    for name in ("model", "dataset", "metric"):
        assert StoredResult.from_record({**LINE, name: None}) is None
        assert StoredResult.from_record({**LINE, name: 3}) is None


@pytest.mark.parametrize("value", [None, "70", True, [1.0], math.nan])
def test_a_value_that_is_no_number_is_nan(value):
    result = StoredResult.from_record({**LINE, "value": value})
    assert result is not None and math.isnan(result.value)


def test_fields_of_another_type_are_read_as_text_or_take_their_default():
    odd = {"unit": None, "evaluation": 3, "protocol": {"k": 20}, "seed": "x", "seconds": [], "model_hash": 1}
    result = StoredResult.from_record({**LINE, **odd, "value": 1})
    assert result is not None and result.value == 1.0 and isinstance(result.value, float)
    assert (result.unit, result.evaluation, result.protocol, result.model_hash) == (
        "%",
        "3",
        "{'k': 20}",
        "1",
    )
    assert result.seed is None and result.seconds == 0.0


def test_fields_that_this_version_does_not_know_are_written_as_they_were_read():
    line = {**LINE, "reference": "dino", "gpu": "H100", "tags": [1, {"x": 2}]}
    result = StoredResult.from_record(line)
    assert result is not None and result.other == {"gpu": "H100", "tags": [1, {"x": 2}]}
    record = result.to_record()
    assert list(record)[-2:] == ["gpu", "tags"] and line.items() <= record.items()
    assert StoredResult.from_record(json.loads(json.dumps(record))) == result


def test_the_last_result_of_a_number_counts_and_other_weights_images_or_protocols_are_other_numbers():
    first = StoredResult(
        model="a", model_hash="w", dataset="d", data_hash="i", metric="m", value=1.0, time="1"
    )
    others = [
        StoredResult(**(vars(first) | {name: "other"}))
        for name in ("model", "model_hash", "dataset", "data_hash", "evaluation", "metric", "protocol")
    ]
    again = StoredResult(**(vars(first) | {"value": 2.0, "time": "2", "reference": "elsewhere"}))
    assert latest([first, *others, again]) == [again, *others]


DAMAGED = [
    pytest.param(b"\xff\xfe{]", id="no UTF-8"),
    pytest.param(b'{"model": ', id="cut short"),
    pytest.param(b"[" * 100_000, id="brackets too deep"),
    pytest.param(b'{"a":' * 100_000, id="objects too deep"),
    pytest.param(b'"text"', id="no object"),
    pytest.param(b"\x00\x00", id="zeros of a power cut"),
]


@pytest.mark.parametrize("damage", DAMAGED)
def test_a_damaged_line_is_left_out_and_the_others_are_read(damage: bytes, tmp_path: Path, caplog):
    path = tmp_path / "results.jsonl"
    path.write_bytes(json.dumps(LINE).encode() + b"\n" + damage + b"\n\n" + json.dumps(LINE).encode() + b"\n")
    assert parse_lines(path, last_needs_end=False) == ([LINE, LINE], [2])
    assert read_lines(path) == [LINE, LINE] and "line 2 is damaged" in caplog.text
    results, remarks = read_results(path)
    assert len(results) == 2 and remarks == [f"{path}: a damaged or unfinished line is left out: 2"]


def test_a_number_too_large_for_a_float_is_infinite(tmp_path: Path):
    path = tmp_path / "results.jsonl"
    path.write_text(json.dumps(LINE).replace("70.5", "1" * 400) + "\n")
    (result,) = read_results(path)[0]
    assert result.value == math.inf


def test_a_run_takes_no_last_line_without_an_end_and_a_report_takes_a_whole_one(tmp_path: Path):
    path = tmp_path / "metrics.jsonl"
    path.write_text('{"step": 1}\n{"step": 2}')
    assert read_lines(path) == [{"step": 1}]
    assert parse_lines(path, last_needs_end=False) == ([{"step": 1}, {"step": 2}], [])
    path.write_text('{"step": 1}\n{"st')
    assert parse_lines(path, last_needs_end=False) == ([{"step": 1}], [2])
    path.write_text("")
    assert read_lines(path) == [] and parse_lines(path, last_needs_end=False) == ([], [])
