"""What `unic report` reads and writes: whole and damaged folders, escaping, the size of the page."""

import csv
import html
import io
import json
import math
import os
import re
import shutil
import tomllib
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from unic.cli import main
from unic.core.errors import ConfigError
from unic.tools.report import page as page_module
from unic.tools.report.chart_data import COLOURS
from unic.tools.report.inputs import read_report_inputs
from unic.tools.report.page import MAX_BYTES, templates, write_report
from unic.tools.report.table_data import ValueTable
from unic.tools.report.table_data import text_of as text_of_value

TEMPLATES = sorted(Path(page_module.__file__).parent.glob("*.html"))
EVIL = "</script><script>alert(1)</script><!-- &amp; \u2028 "


def record(model: str, value: float | None, dataset: str = "dtd", **more) -> dict:
    return {"model": model, "dataset": dataset, "evaluation": "knn", "metric": "top1", "value": value} | more


def write_lines(path: Path, records: list[dict]) -> Path:
    path.write_text("".join(json.dumps(record) + "\n" for record in records))
    return path


def write_run(folder: Path, *, steps: int = 3, results: list[dict] | None = None, **config) -> Path:
    folder.mkdir(parents=True)
    (folder / "config.json").write_text(json.dumps({"teachers": ["dino"], "seed": 0} | config))
    if steps:
        metrics = [
            {"step": s, "loss": 1 / s, "loss/dino/cls": 1 / s, "kept/dino": 1.0} for s in range(1, steps + 1)
        ]
        write_lines(folder / "metrics.jsonl", metrics)
    if results:
        write_lines(folder / "results.jsonl", results)
    return folder


def data_of(page: Path) -> dict:
    text = page.read_text()
    return json.loads(re.search(r'<script type="application/json" id="data">(.*?)</script>', text, re.S)[1])


def text_of(page: Path) -> str:
    without_code = re.sub(r"<(script|style).*?</\1>", "", page.read_text(), flags=re.S)
    return html.unescape(re.sub(r"<[^>]+>", " ", without_code))


class Balance(HTMLParser):
    """Collects elements that are closed in another order than they were opened."""

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.wrong: list[str] = []

    def handle_starttag(self, tag: str, attrs: list) -> None:
        if tag not in ("meta", "link", "img"):
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        if not self.open or self.open.pop() != tag:
            self.wrong.append(tag)


def check_page(page: Path) -> None:
    balance = Balance()
    balance.feed(page.read_text())
    assert balance.wrong == [] and balance.open == []
    assert page.stat().st_size < MAX_BYTES


def test_a_run_gives_a_page_tables_and_figures_and_its_path_is_printed(tmp_path, capsys):
    run = write_run(tmp_path / "run", results=[record("dino", 50.0), record("run", 60.0)])
    assert main(["report", str(run), "--out", str(tmp_path / "out")]) == 0
    assert capsys.readouterr().out.splitlines()[-1] == str(tmp_path / "out" / "index.html")
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == [
        "curves.png", "curves.svg", "index.html", "radar.png", "radar.svg", "results.csv", "results.md",
    ]  # fmt: skip
    check_page(tmp_path / "out" / "index.html")
    assert "run reaches 120.0 % of dino on dtd" in " ".join(text_of(tmp_path / "out" / "index.html").split())
    assert "**60.0 (+10.0)**" in (tmp_path / "out" / "results.md").read_text()
    assert Image.open(tmp_path / "out" / "radar.png").size[0] > 600
    assert (tmp_path / "out" / "radar.svg").read_text().startswith("<?xml")


def test_the_csv_has_every_metric_with_its_difference_and_ratio(tmp_path):
    results = [record("dino", 50.0), record("dino", 80.0, metric="top5"), record("run", 60.0, data_hash="")]
    page = write_report([write_run(tmp_path / "run", results=results)], tmp_path / "out")
    rows = list(csv.DictReader(io.StringIO((page.parent / "results.csv").read_text())))
    assert [(row["model"], row["metric"], row["value"]) for row in rows] == [
        ("dino", "top1", "50.0"), ("dino", "top5", "80.0"), ("run", "top1", "60.0"),
    ]  # fmt: skip
    assert rows[2]["difference"] == "10.0" and float(rows[2]["relative_percent"]) == pytest.approx(120.0)
    assert rows[0]["is_baseline"] == "True" and rows[2]["is_best"] == "True"


def test_figures_of_an_earlier_report_do_not_stay_behind(tmp_path):
    run = write_run(tmp_path / "run", results=[record("dino", 50.0), record("run", 60.0)])
    write_report([run], tmp_path / "out")
    (run / "results.jsonl").unlink()
    (run / "metrics.jsonl").unlink()
    page = write_report([run], tmp_path / "out")
    assert [path.name for path in page.parent.iterdir()] == ["index.html"]
    assert "No metrics are written yet" in text_of(page)


@pytest.mark.parametrize(
    "results",
    [
        [],
        [record("student", 1.0)],
        [record("student", None), record("dino", math.nan)],
        [record("student", -1.0), record("dino", 0.0)],
        [record("a", 1.0), record("b", 2.0), record("b", 3.0)],
        [
            record("x" * 300, 1.0, "y" * 300, metric="z" * 300),
            record("$x_$^{", 2.0, "y" * 300, metric="z" * 300),
        ],
        [record(f"model {m}", 1.0 + m * n, f"set {n}") for m in range(12) for n in range(30)],
        [record(f"model {m}", 1.0 + m * n, f"set {n}") for m in range(3) for n in range(5) if m + n != 3],
    ],
    ids=[
        "none",
        "one encoder",
        "not finite",
        "negative",
        "no teacher",
        "long names",
        "many axes",
        "holes in a radar",
    ],
)
def test_any_results_make_a_page(tmp_path, results):
    page = write_report([write_run(tmp_path / "run", results=results)], tmp_path / "out")
    check_page(page)
    assert "NaN" not in json.dumps(data_of(page))


@pytest.mark.parametrize(
    "metrics",
    [
        [],
        [{"step": 1, "loss": 0.5}],
        [{"step": 1, "loss": math.nan}, {"step": 2, "loss": math.inf}],
        [{"step": 1, "loss": None}, {"step": 2, "loss": 1.0}, {"step": 3, "loss": math.inf}],
        [{"step": 1, "note": "x"}, {"loss": 1.0}],
        [{"step": 1, "val/loss": 0.5, "lr": 0, "flag": True}],
    ],
)
def test_any_metrics_make_a_page_and_what_is_not_finite_is_null(tmp_path, metrics):
    run = write_run(tmp_path / "run", steps=0)
    write_lines(run / "metrics.jsonl", metrics)
    page = write_report([run], tmp_path / "out")
    check_page(page)
    values = [v for chart in data_of(page)["charts"].values() for s in chart["series"] for v in s["y"]]
    assert all(value is None or math.isfinite(value) for value in values)


def test_results_of_other_tools_may_have_other_types_of_fields(tmp_path):
    odd = {
        "unit": None,
        "evaluation": 3,
        "protocol": {"k": 20},
        "model_hash": 1,
        "reference": ["x"],
        "data_hash": None,
    }
    page = write_report(
        [write_lines(tmp_path / "odd.jsonl", [record("a", 1, **odd), record("b", 2, **odd)])], tmp_path
    )
    check_page(page)
    assert "3 top1" in text_of(page)


def test_large_and_small_numbers_are_written_for_people():
    shown = [
        text_of_value(value) for value in (1e-6, 0.1234567, 4.0, 12345.678, math.nan, None, True, "x", [1, 2])
    ]
    assert shown == ["1e-06", "0.1235", "4", "12,346", "–", "–", "yes", "x", "[1, 2]"]  # noqa: RUF001


def test_a_run_that_still_trains_is_said_to(tmp_path):
    run = write_run(tmp_path / "run", optim={"epochs": 4})
    assert "not finished; step 3" in text_of(write_report([run], tmp_path / "out"))
    (run / "encoder.safetensors").touch()
    assert "not finished" not in text_of(write_report([run], tmp_path / "out"))


def test_damaged_lines_are_left_out_and_named(tmp_path):
    run = write_run(tmp_path / "run", results=[record("dino", 50.0), record("run", 60.0)])
    with (run / "metrics.jsonl").open("a") as lines:
        lines.write('{"step": 4, "lo')
    with (run / "results.jsonl").open("ab") as lines:
        lines.write(b'\xff\xfe{]\n"text"\n' + json.dumps({"model": "no value's name"}).encode() + b"\n")
        lines.write(json.dumps(record("run", 70.0)).encode())  # whole, only without an end
    inputs = read_report_inputs([run])
    assert [result.value for result in inputs.results] == [50.0, 70.0], "the last of run's two counts"
    assert inputs.runs[0].metrics[-1]["step"] == 3
    assert [note.removeprefix(str(run)) for note in inputs.notes] == [
        "/metrics.jsonl: a damaged or unfinished line is left out: 4",
        "/results.jsonl: a damaged or unfinished line is left out: 3, 4",
        "/results.jsonl: 1 of 4 records are no results and are left out",
    ]
    assert "unfinished line" in text_of(write_report([run], tmp_path / "out"))


def test_teachers_that_no_longer_exist_are_names_like_any_other(tmp_path):
    check_page(
        write_report([write_run(tmp_path / "run", teachers=["x?nonsense", "gone:by", 3])], tmp_path / "out")
    )


def test_a_damaged_recipe_is_named_and_the_rest_is_shown(tmp_path):
    run = write_run(tmp_path / "run")
    (run / "config.json").write_text("{")
    page = write_report([run], tmp_path / "out")
    assert "config.json: not a JSON file" in text_of(page) and data_of(page)["charts"]


def test_two_students_of_one_name_are_two_encoders(tmp_path):
    runs = []
    for place in ("a", "b"):
        results = [
            record("student", 60.0, model_hash=place), record("student untrained", 6.0, model_hash="same"),
            record("dino", 50.0, model_hash="teacher"),
        ]  # fmt: skip
        runs.append(write_run(tmp_path / place / "student", results=results))
    models = list(dict.fromkeys(result.model for result in read_report_inputs(runs).results))
    assert models == ["a/student", "student untrained", "dino", "b/student"]


def test_a_teacher_of_one_name_with_other_weights_is_told_apart_and_stays_a_baseline(tmp_path):
    files = [
        write_lines(tmp_path / f"{name}.jsonl", [record("efficientnet_lite0", 50.0, model_hash=name)])
        for name in "ab"
    ]
    page = write_report(files, tmp_path / "out")
    assert text_of(page).count("baseline") >= 2
    assert "efficientnet_lite0 (a.jsonl)" in text_of(page)


def test_the_recipes_of_several_runs_are_compared_field_by_field(tmp_path):
    runs = [write_run(tmp_path / f"run{n}", optim={"lr": n / 10, "epochs": 1}) for n in range(3)]
    text = " ".join(text_of(write_report(runs, tmp_path / "out")).split())
    assert "1 of 4 fields differ." in text and "run optim.lr run0 0 run1 0.1 run2 0.2" in text


def test_no_name_can_break_out_of_the_data_or_the_markup(tmp_path):
    run = write_run(tmp_path / "<img src=x onerror=alert(1)>", teachers=[EVIL], notes={EVIL: EVIL})
    write_lines(
        run / "results.jsonl", [record(EVIL, 1.0, EVIL, metric=EVIL, protocol=EVIL), record("b", 2.0, EVIL)]
    )
    write_lines(
        run / "metrics.jsonl", [{"step": 1, "loss": 1.0, f"loss/{EVIL}/cls": 1.0, f"kept/{EVIL}": 1.0}]
    )
    write_lines(run / "alarms.jsonl", [{"step": EVIL, "alarm": EVIL, "message": EVIL}])
    (run / "environment.json").write_text(json.dumps({EVIL: EVIL, "command": [EVIL]}))
    page = write_report([run], tmp_path / "out")
    check_page(page)
    text = page.read_text()
    assert text.count("<script") == 2 and "<img" not in text and "<!--" not in text
    assert any(EVIL in s["name"] for chart in data_of(page)["charts"].values() for s in chart["series"])


def test_json_in_a_script_is_the_same_value_without_any_sign_that_could_end_it():
    value = {"a</script>": ["<!--", "&", "\u2028", 1.5, None, True]}
    text = templates().from_string("{{ value | tojson }}").render(value=value)
    assert not set("<>&\u2028") & set(text)
    assert json.loads(text) == value
    with pytest.raises(ValueError, match="not JSON compliant"):
        templates().from_string("{{ value | tojson }}").render(value=math.nan)


def test_every_value_of_a_template_is_escaped_in_text_and_in_attributes():
    text = templates().from_string('<p title="{{ a }}">{{ b }}</p>').render(a='"<', b="a<b>&")
    assert text == '<p title="&#34;&lt;">a&lt;b&gt;&amp;</p>'
    assert not re.search(r"\|\s*safe|autoescape|Markup", "".join(path.read_text() for path in TEMPLATES))


def test_every_file_of_the_page_is_installed_with_the_package():
    folder = Path(page_module.__file__).parent
    project = tomllib.loads((Path(__file__).parents[3] / "pyproject.toml").read_text())
    installed = set(project["tool"]["setuptools"]["package-data"]["unic.tools.report"])
    assert installed == {path.name for path in folder.iterdir() if path.suffix in (".html", ".css", ".js")}
    assert any(name.startswith("jinja2") for name in project["project"]["dependencies"])


def test_a_column_of_numbers_is_sorted_by_them_and_shows_words_for_people():
    table = ValueTable(columns=[("n", [1024, None, 0.5]), ("word", ["1", True, "<"])], thousands=True)
    source = '{% import "sections.html" as parts with context %}{{ parts.value_table(table) }}'
    text = templates().from_string(source).render(table=table)
    assert '<td class="number" data-value="1024">1,024</td>' in text
    assert '<td class="number">–</td>' in text and 'data-value="0.5">0.5</td>' in text  # noqa: RUF001
    assert [word in text for word in (">1</span>", ">yes</span>", ">&lt;</span>")] == [True] * 3


def test_an_evaluation_that_was_repeated_stands_on_the_page_once(tmp_path):
    first, again = (record("run", value, model_hash="w", data_hash="d") for value in (60.0, 61.0))
    run = write_run(tmp_path / "run", results=[first, first, again])
    copy = write_lines(tmp_path / "copy.jsonl", [again])
    page = write_report([run, copy], tmp_path / "out")
    text = " ".join(text_of(page).split())
    assert "61.0" in text and "60.0" not in text and "(1 evaluations)" in text
    assert len((tmp_path / "out" / "results.csv").read_text().splitlines()) == 2


def test_the_page_names_no_other_address(tmp_path):
    page = write_report([write_run(tmp_path / "run", results=[record("dino", 1.0)])], tmp_path / "out")
    text = page.read_text().replace("http://www.w3.org/2000/svg", "")  # a name, which nobody fetches
    assert "http:" not in text and "https:" not in text and "url(" not in text and "@import" not in text
    assert "default-src 'none'" in text


def write_pictures(folder: Path, count: int, side: int) -> None:
    folder.mkdir()
    entries = []
    for number in range(count):
        noise = np.random.default_rng(number).integers(0, 256, (side, side, 3), dtype=np.uint8)
        Image.fromarray(noise).save(folder / f"{number}.png")
        entries.append(
            {"file": f"{number}.png", "kind": "pca", "title": f"ReportPicture {number}", "caption": "noise"}
        )
    (folder / "pictures.json").write_text(json.dumps(entries))


def test_pictures_are_part_of_the_page(tmp_path):
    run = write_run(tmp_path / "run")
    write_pictures(run / "pictures", 2, 64)
    text = write_report([run], tmp_path / "out").read_text()
    assert text.count('<img src="data:image/png;base64,') == 2 and "ReportPicture 1" in text


def test_pictures_that_do_not_fit_are_left_out_and_counted(tmp_path, monkeypatch):
    run = write_run(tmp_path / "run")
    write_pictures(run / "pictures", 8, 256)  # noise: about 40 KB each, also as WebP
    monkeypatch.setattr(page_module, "MAX_BYTES", 300_000)
    page = write_report([run], tmp_path / "out")
    shown = page.read_text().count("<img ")
    assert 0 < shown < 8 and page.stat().st_size <= 300_000
    assert f"{8 - shown} of 8 pictures are left out" in text_of(page)


def test_a_large_picture_is_scaled_down_and_a_broken_one_is_named(tmp_path):
    write_pictures(tmp_path / "pictures", 2, 1500)
    (tmp_path / "pictures" / "0.png").write_bytes(b"no picture")
    page = write_report([tmp_path / "pictures"], tmp_path / "out")
    assert page.read_text().count('<img src="data:image/webp') == 1
    assert "1 of 2 pictures are left out" in text_of(page)


def test_a_list_of_pictures_reaches_no_file_outside_its_folder(tmp_path):
    write_pictures(tmp_path / "pictures", 1, 32)
    shutil.copy(tmp_path / "pictures" / "0.png", tmp_path / "secret.png")
    (tmp_path / "pictures" / "pictures.json").write_text(
        json.dumps([{"file": "../secret.png"}, 3, {"file": "0.png"}])
    )
    inputs = read_report_inputs([tmp_path / "pictures"])
    assert [picture.path.name for picture in inputs.pictures] == ["0.png"] and len(inputs.notes) == 2


def test_a_diagnosis_is_shown_from_a_file_a_folder_or_a_run(tmp_path):
    doctor = {
        "data": "/images", "images": 10, "pairs": [{"a": "dino", "b": "ibot", "token": "cls", "cka": 0.8}],
        "teachers": [{"name": "dino", "token": "cls", "norm": 3.5, "dead_share": None}],
        "warnings": [{"teachers": ["dino"], "kind": "dead", "message": "half of it is dead"}],
    }  # fmt: skip
    run = write_run(tmp_path / "run")
    (run / "doctor.json").write_text(json.dumps(doctor))
    for path in (run, run / "doctor.json"):
        text = text_of(write_report([path], tmp_path / "out"))
        assert "half of it is dead" in text and "3.5" in text and "CKA" in text


@pytest.mark.parametrize("odd", [[{}], [1, None, "x"], {}, "teachers", [{"name": {"<b>": [1]}, "norm": "x"}]])
def test_odd_values_in_a_diagnosis_an_environment_and_alarms_make_a_page(tmp_path, odd):
    run = write_run(tmp_path / "run", odd=odd, optim=odd)
    doctor = {"teachers": odd if isinstance(odd, list) else [odd], "pairs": odd, "warnings": odd, "data": odd}
    (run / "doctor.json").write_text(json.dumps(doctor))
    (run / "environment.json").write_text(json.dumps({"command": odd, "packages": odd, "x": odd}))
    write_lines(run / "alarms.jsonl", [{"step": odd, "alarm": odd, "message": odd}, {}])
    other = write_run(tmp_path / "other")
    for paths in ([run], [run, other], [run / "doctor.json"]):
        page = write_report(paths, tmp_path / "out")
        check_page(page)
        assert "<b>" not in page.read_text()


def test_two_hundred_runs_stay_below_the_limit(tmp_path):
    metrics = [
        {"step": step, **{f"number {n}": math.sin(step * n) + n for n in range(8)}, "loss": 1 / (step + 1)}
        for step in range(60)
    ]
    runs = []
    for number in range(200):
        run = write_run(tmp_path / f"run{number}", steps=0, seed=number)
        write_lines(run / "metrics.jsonl", metrics)
        write_lines(
            run / "results.jsonl", [record(f"run{number}", 50.0 + number, f"set{s}") for s in range(4)]
        )
        runs.append(run)
    page = write_report(runs, tmp_path / "out")
    check_page(page)
    assert "200 runs" in text_of(page)
    shown = [
        s
        for chart in data_of(page)["charts"].values()
        if len(chart["series"]) == 200
        for s in chart["series"]
    ]
    assert shown and sum(not s["off"] for s in shown) <= 16


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda tmp: tmp / "nowhere", "no such file or folder; wanted a run folder or a file of results"),
        (lambda tmp: tmp, "is no run folder"),
        (
            lambda tmp: Path(shutil.copy(__file__, tmp / "x.py")),
            "is neither a run folder, nor a file of results",
        ),
        (lambda tmp: write_lines(tmp / "empty.jsonl", []), "nothing to report on: no result in"),
        (lambda tmp: write_lines(tmp / "metrics.jsonl", [{"step": 1}]), "nothing to report on: no result in"),
    ],
)
def test_what_is_neither_run_nor_results_is_an_error_in_a_sentence(tmp_path, make, message, capsys):
    (tmp_path / "here").mkdir()
    path = make(tmp_path / "here")
    assert main(["report", str(path), "--out", str(tmp_path / "out")]) == 2
    assert message in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_nothing_at_all_and_a_file_as_output_are_errors(tmp_path):
    with pytest.raises(ConfigError, match="nothing to report on"):
        write_report([], tmp_path / "out")
    run = write_run(tmp_path / "run")
    with pytest.raises(ConfigError, match="is a file; the output must be a folder"):
        write_report([run], run / "config.json")


def test_a_folder_that_cannot_be_written_to_is_an_error_in_a_sentence(tmp_path, capsys):
    if os.getuid() == 0:
        pytest.skip("root may write anywhere")
    run = write_run(tmp_path / "run")
    run.chmod(0o500)
    assert main(["report", str(run), "--out", str(run / "out")]) == 2
    assert "Permission denied" in capsys.readouterr().err


def test_the_page_has_the_colours_of_the_plots():
    style = (Path(page_module.__file__).parent / "page.css").read_text()
    # Yellow cannot be seen on white; the page darkens it there.
    light = [f"--c{number}: light-dark({colour.lower()}," for number, colour in enumerate(COLOURS[:-1])]
    assert all(words in style for words in light) and f"{COLOURS[-1].lower()}" in style
