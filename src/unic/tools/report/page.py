"""One page of all there is about some runs and results: index.html, and beside it tables and figures as files."""

import base64
import hashlib
import json
import math
import time
from collections.abc import Iterator, Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

from unic.core.errors import ConfigError
from unic.core.files import write_atomically
from unic.tools.report.chart_data import (
    FEWEST_POINTS,
    Chart,
    colours,
    comparison_charts,
    points_of_each,
    relative_chart,
    run_charts,
)
from unic.tools.report.choose_baselines import BEST_TEACHER, choose_baselines, teacher_name
from unic.tools.report.comparison import Comparison, compare
from unic.tools.report.inline_images import embed
from unic.tools.report.inputs import ReportInputs, ReportPicture, read_report_inputs
from unic.tools.report.matplotlib_charts import loss_charts, plot_charts, plot_relative
from unic.tools.report.results_table import to_csv, to_markdown
from unic.tools.report.sections import (
    alarm,
    comparison_of_recipes,
    diagnosis,
    lead,
    origin,
    run_state,
    table_of_runs,
)
from unic.tools.report.table_data import are_numbers, is_finite, text_of
from unic.version import __version__

MAX_BYTES = 5_000_000
"""Of index.html: small enough to be mailed."""
OPEN_RUNS = 3
"""With more runs than these, their sections are closed at first."""
MAX_CELLS = 6_000
"""Of the table of all numbers; with more, results.csv has them."""


def write_report(paths: Sequence[Path], out: Path, baseline: str = BEST_TEACHER) -> Path:
    """Reads `paths`, and writes index.html, results.md, results.csv and figures into `out`; gives the page's path.

    paths: run folders, files of results (.jsonl), doctor.json, folders with pictures.json.
    baseline: the name of a model, or BEST_TEACHER: the teachers of the runs, or all teachers where none was measured.
    """
    inputs = read_report_inputs(paths)
    teachers = [teacher for run in inputs.runs for teacher in run.teachers]
    comparison = compare(inputs.results, choose_baselines(inputs.results, teachers, baseline))
    if out.exists() and not out.is_dir():
        raise ConfigError(f"{out} is a file; the output must be a folder")
    out.mkdir(parents=True, exist_ok=True)
    for name in ("results.md", "results.csv", "radar.png", "radar.svg", "curves.png", "curves.svg"):
        (out / name).unlink(missing_ok=True)  # of an earlier report, which may have had more to show
    if inputs.results:
        write_atomically(out / "results.md", to_markdown(comparison.main()).encode())
        write_atomically(out / "results.csv", to_csv(comparison).encode())
    content = PageContent(inputs, comparison)
    losses = loss_charts({run.name: run.metrics for run in inputs.runs}, content.colour_of)
    for kind in ("png", "svg"):
        if content.relative is not None:
            plot_relative(content.relative, out / f"radar.{kind}")
        if losses:
            plot_charts(losses, out / f"curves.{kind}")
    page = out / "index.html"
    write_atomically(page, content.render().encode())
    return page


class Section(NamedTuple):
    """macro: of sections.html, which draws the content."""

    anchor: str
    heading: str
    macro: str
    content: Any


class PageContent:
    """All that the page shows: its sections in order, and the charts that page.js draws in them."""

    def __init__(self, inputs: ReportInputs, comparison: Comparison):
        self.inputs, self.runs = inputs, inputs.runs
        self.comparison, self.main = comparison, comparison.main()
        self.colour_of = _colours(inputs, comparison.baselines)
        self.goal = "teacher" if comparison.baselines else "encoder"
        self.relative = relative_chart(self.main, self.colour_of)
        self.points = points_of_each([run.metrics for run in self.runs])
        self.charts: dict[str, Chart] = {}
        self.charts_of: dict[str, dict[str, Chart]] = {}
        self.sections = list(self._sections())

    def render(self) -> str:
        """The page, which needs nothing but itself. Pictures take what room the rest of it leaves."""
        pictures = [*self.inputs.pictures, *(picture for run in self.runs for picture in run.pictures)]
        without_pictures = self._render(pictures, {})
        if not pictures:
            return without_pictures
        return self._render(pictures, embed(pictures, MAX_BYTES - len(without_pictures.encode())))

    def _render(self, pictures: Sequence[ReportPicture], addresses: Mapping[ReportPicture, str]) -> str:
        """addresses: of the pictures there is room for, as data."""
        left_out = [picture for picture in pictures if picture not in addresses]
        template, script = templates().get_template("page.html"), _read("page.js")
        sections = [
            section
            for section in self.sections
            if section.macro != "pictures" or any(picture in addresses for picture in section.content)
        ]
        return template.render(
            title=_title(self.inputs),
            time=time.strftime("%d %B %Y, %H:%M"),
            version=__version__,
            style=Markup(_read("page.css")),
            script=Markup(script),
            # The browser runs this script and no other, whatever a name may try.
            script_hash=f"sha256-{base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()}",
            lead=lead(self.main),
            remarks=[*self.inputs.notes, *self._remarks(len(pictures), left_out)],
            sections=sections,
            best=self.goal,
            open_runs=OPEN_RUNS,
            addresses=addresses,
            charts=self.charts,
            charts_of=self.charts_of,
        )

    def _sections(self) -> Iterator[Section]:
        inputs, runs = self.inputs, self.runs
        if inputs.results:
            has_room = len(self.comparison.columns) * len(self.comparison.rows) <= MAX_CELLS
            has_gaps = any(not math.isfinite(result.value) for result in inputs.results)
            content = {"main": self.main, "all": self.comparison, "has_room": has_room, "has_gaps": has_gaps}
            yield Section("results", "Results", "results", content)
        if self.relative is not None:
            heading = f"Relative to the best {self.goal}"
            yield Section("relative", heading, "relative", self._place([self.relative]))
        if len(runs) > 1:
            metrics = {run.name: run.metrics for run in runs}
            charts = comparison_charts(metrics, self.colour_of, max(self.points, FEWEST_POINTS))
            content = {
                "table": table_of_runs(runs),
                "recipes": comparison_of_recipes(runs),
                "charts": self._place(charts),
            }
            yield Section("runs", f"{len(runs)} runs", "compared_runs", content)
            yield Section("each-run", "Each run", "each_run", runs)
        if len(runs) == 1:
            yield Section("run", f"Run {runs[0].name}", "single_run", runs[0])
        if self.points >= FEWEST_POINTS:
            for run in runs:
                self.charts_of[run.name] = self._place(run_charts(run.metrics, self.colour_of, self.points))
        for file, doctor in inputs.doctors:
            content = {"file": file, "doctor": doctor}
            yield Section("diagnosis", "Diagnosis of the teachers", "doctor_file", content)
        if inputs.pictures:
            yield Section("pictures", "Pictures", "pictures", inputs.pictures)
        if content := origin(runs, inputs.results):
            yield Section("origin", "Environment and provenance", "origin", content)

    def _place(self, charts: Sequence[Chart]) -> dict[str, Chart]:
        """The charts by the names under which page.js reads them."""
        named = {f"chart-{number}": chart for number, chart in enumerate(charts, start=len(self.charts))}
        self.charts |= named
        return named

    def _remarks(self, num_pictures: int, left_out: Sequence[ReportPicture]) -> Iterator[str]:
        if self.runs and self.points < FEWEST_POINTS:
            yield f"{len(self.runs)} runs have too many curves for one page: they are compared, not shown one by one"
        if left_out:
            named = ", ".join(str(picture.path) for picture in left_out[:5])
            yield (
                f"{len(left_out)} of {num_pictures} pictures are left out, because they cannot be read or the page "
                f"would be larger than {MAX_BYTES // 1_000_000} MB: {named}{', ...' if len(left_out) > 5 else ''}"
            )


@cache
def templates() -> Environment:
    """Escapes every value. Its JSON holds no sign that could end a script, and no number that JSON does not have."""
    templates = Environment(
        loader=FileSystemLoader(Path(__file__).parent),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    templates.policies["json.dumps_kwargs"] = {
        "allow_nan": False,
        "separators": (",", ":"),
        "default": vars,  # charts are dataclasses
    }
    templates.filters |= {
        "text": text_of, "state": run_state, "alarm": alarm, "diagnosis": diagnosis,
        "json": lambda value: json.dumps(value, indent=2, ensure_ascii=False),
    }  # fmt: skip
    templates.tests |= {"numbers": are_numbers, "finite": is_finite}
    return templates


def _read(name: str) -> str:
    return (Path(__file__).parent / name).read_text(encoding="utf-8")


def _colours(inputs: ReportInputs, baselines: Sequence[str]) -> dict[str, int]:
    """The same colour for a name in every chart and figure."""
    teachers = [teacher_name(teacher) for run in inputs.runs for teacher in run.teachers]
    names = [*(result.model for result in inputs.results), *(run.name for run in inputs.runs)]
    return colours(list(dict.fromkeys([*baselines, *teachers])), names)


def _title(inputs: ReportInputs) -> str:
    if len(inputs.runs) == 1:
        return inputs.runs[0].name
    models = len({result.model for result in inputs.results})
    parts = [f"{len(inputs.runs)} runs" if inputs.runs else "", f"{models} encoders" if models else ""]
    return ", ".join(filter(None, parts)) or "Diagnosis and pictures"
