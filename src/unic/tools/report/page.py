"""One page of all there is about some runs and results: index.html, and beside it tables and figures as files."""

import base64
import csv
import hashlib
import io
import math
import time
from collections.abc import Iterator, Mapping, Sequence
from importlib.resources import files
from pathlib import Path
from string import Template

from unic.core.errors import ConfigError
from unic.core.files import write_atomically
from unic.tools.report.charts import (
    FEWEST_POINTS,
    Chart,
    colours,
    comparison_charts,
    points_of_each,
    radar_chart,
    run_charts,
)
from unic.tools.report.figures import plot_radar, plot_runs
from unic.tools.report.html import Html, join, script_json, tag
from unic.tools.report.inline_images import embed
from unic.tools.report.inputs import ReportInputs, ReportPicture, Run, read_report_inputs
from unic.tools.report.relative_to_teacher import BEST_TEACHER, baselines, relative, teacher_name
from unic.tools.report.results_table import Record, grid, reported, to_markdown
from unic.tools.report.sections import (  # fmt: skip
    alarm_list,
    chart_figures,
    comparison_of_recipes,
    diagnosis,
    environments,
    lead,
    notes,
    picture_grid,
    provenance,
    recipe,
    result_table,
    run_state,
    table_of_runs,
)
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
    compared = baselines(inputs.results, [t for run in inputs.runs for t in run.teachers], baseline)
    if out.exists() and not out.is_dir():
        raise ConfigError(f"{out} is a file; the output must be a folder")
    out.mkdir(parents=True, exist_ok=True)
    for name in ("results.md", "results.csv", "radar.png", "radar.svg", "curves.png", "curves.svg"):
        (out / name).unlink(missing_ok=True)  # of an earlier report, which may have had more to show
    colour_of = _colours(inputs, compared)
    if inputs.results:
        shown = reported(inputs.results)
        write_atomically(out / "results.md", to_markdown(shown, compared).encode())
        write_atomically(out / "results.csv", results_csv(inputs.results, compared).encode())
        found = relative(shown, compared)
        if radar_chart(found, compared, colour_of):
            for kind in ("png", "svg"):
                plot_radar(found, compared, colour_of, out / f"radar.{kind}")
    for kind in ("png", "svg"):
        plot_runs({run.name: run.metrics for run in inputs.runs}, colour_of, out / f"curves.{kind}")
    page = out / "index.html"
    write_atomically(page, render(inputs, compared).encode())
    return page


def render(inputs: ReportInputs, baselines: Sequence[str]) -> str:
    """The page, which needs nothing but itself. Pictures take what room the rest of it leaves."""
    pictures = [*inputs.pictures, *(picture for run in inputs.runs for picture in run.pictures)]
    without = _Page(inputs, baselines, pictures, {}).html()
    if not pictures:
        return without
    addresses = embed(pictures, MAX_BYTES - len(without.encode()))
    return _Page(inputs, baselines, pictures, addresses).html()


def results_csv(results: Sequence[Record], baselines: Sequence[str]) -> str:
    """A line for each number, all metrics of every evaluation, as spreadsheets and pandas read it."""
    columns, rows = grid(results, baselines)
    found = relative(results, baselines)
    of_column = {column: number for number, column in enumerate(found.columns)}
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(
        ["model", "is_baseline", "dataset", "evaluation", "metric", "protocol", "unit", "higher_is_better", "value",
         "spread", "is_best", "difference", "relative_percent", "data_hash"]
    )  # fmt: skip
    for model, cells in rows.items():
        for column, cell in zip(columns, cells, strict=True):
            if cell.value is None:
                continue
            ratio = found.values[model][of_column[column]] if column in of_column else None
            writer.writerow(
                [model, model in baselines, column.dataset, column.evaluation, column.metric, column.protocol,
                 column.unit, column.higher_is_better, cell.value, cell.spread, cell.is_best, cell.difference, ratio,
                 column.data_hash]
            )  # fmt: skip
    return text.getvalue()


class _Page:
    """Its sections, in order, and the charts that page.js will draw in them."""

    def __init__(
        self,
        inputs: ReportInputs,
        baselines: Sequence[str],
        pictures: Sequence[ReportPicture],
        addresses: Mapping[ReportPicture, str],
    ):
        """addresses: of the pictures there is room for, as data."""
        self.runs, self.results, self.baselines, self.addresses = (
            inputs.runs, inputs.results, baselines, addresses,
        )  # fmt: skip
        self.shown = reported(inputs.results)
        self.relative = relative(self.shown, baselines)
        self.colour_of = _colours(inputs, baselines)
        self.points = points_of_each(self.runs)
        self.charts: dict[str, Chart] = {}
        self.links: list[Html] = []
        self.content: list[Html] = [notes([*inputs.notes, *self._remarks(pictures)])]
        if self.results:
            self._add("results", "Results", *self._results())
        self._add_relative()
        if len(self.runs) > 1:
            self._add("runs", f"{len(self.runs)} runs", *self._compared_runs())
            self._add("each-run", "Each run", *map(self._closable_run, self.runs))
        for run in self.runs[: len(self.runs) == 1]:
            self._add("run", f"Run {run.name}", tag("p", run_state(run), class_="quiet"), *self._run(run))
        for name, doctor in inputs.doctors:
            self._add(
                "diagnosis", "Diagnosis of the teachers", tag("p", name, class_="note"), diagnosis(doctor)
            )
        self._add("pictures", "Pictures", picture_grid(inputs.pictures, addresses))
        self._add("origin", "Environment and provenance", environments(self.runs), provenance(self.results))
        self.title = _title(inputs)

    def html(self) -> str:
        switch = tag("button", "\u25d0", type="button", class_="plain", id="scheme")
        made = f"unic report, {time.strftime('%d %B %Y, %H:%M')}"
        names = tag("div", tag("h1", self.title), tag("div", made, class_="quiet"))
        masthead = tag("div", names, switch, class_="masthead")
        navigation = tag("nav", tag("ul", *self.links), aria_label="Sections")
        without_script = "Charts need JavaScript; curves.svg and radar.svg beside this page do not."
        body = [
            tag("header", masthead, lead(self.relative, self.baselines), navigation),
            tag("main", tag("noscript", tag("p", without_script)), *self.content, id="content"),
            tag("footer", f"Written by unic {__version__}. The page holds all it shows and loads nothing."),
        ]
        here = files("unic.tools.report")
        style, script = (here.joinpath(name).read_text(encoding="utf-8") for name in ("page.css", "page.js"))
        return Template(here.joinpath("page.html").read_text(encoding="utf-8")).substitute(
            title=join([f"{self.title} \u00b7 unic report"]),
            version=__version__,
            style=style,
            script=script,
            # The browser runs this script and no other, whatever a name may try.
            script_hash=f"sha256-{base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()}",
            body=join(body),
            data=script_json({"charts": self.charts}),
        )

    def _add(self, anchor: str, heading: str, *content: Html) -> None:
        if any(content):
            self.links.append(tag("li", tag("a", heading, href=f"#{anchor}")))
            self.content += [tag("h2", heading, id=anchor), *content]

    def _remarks(self, pictures: Sequence[ReportPicture]) -> Iterator[str]:
        if self.runs and self.points < FEWEST_POINTS:
            yield f"{len(self.runs)} runs have too many curves for one page: they are compared, not shown one by one"
        if left_out := [picture for picture in pictures if picture not in self.addresses]:
            named = ", ".join(str(picture.path) for picture in left_out[:5])
            yield (
                f"{len(left_out)} of {len(pictures)} pictures are left out, because they cannot be read or the page "
                f"would be larger than {MAX_BYTES // 1_000_000} MB: {named}{', ...' if len(left_out) > 5 else ''}"
            )

    def _results(self) -> Iterator[Html]:
        yield result_table(self.shown, self.baselines)
        columns, rows = grid(self.results, self.baselines)
        if any(not math.isfinite(record["value"]) for record in self.results):
            yield tag("p", "A dash also stands for a value that is not a finite number.", class_="note")
        if len(columns) * len(rows) > MAX_CELLS:
            yield tag("p", "All other metrics of the evaluations are in results.csv.", class_="note")
        elif len(columns) > len(grid(self.shown, self.baselines)[0]):
            summary = tag("summary", f"All metrics ({len(columns)})")
            yield tag("details", summary, result_table(self.results, self.baselines))

    def _add_relative(self) -> None:
        if chart := radar_chart(self.relative, self.baselines, self.colour_of):
            goal = "teacher" if self.relative.of_teachers else "encoder"
            words = (
                f"The dotted line, 100 %, is the best {goal} of each evaluation. Outside it is better, also where less "
                "is better (the ratio is then turned round). The scale fits what is shown and does not begin at zero."
            )
            self._add(
                "relative",
                f"Relative to the best {goal}",
                self._figures([chart]),
                tag("p", words, class_="note"),
            )

    def _compared_runs(self) -> Iterator[Html]:
        yield table_of_runs(self.runs)
        yield tag("h3", "Where the recipes differ")
        yield comparison_of_recipes(self.runs)
        charts = comparison_charts(self.runs, self.colour_of, max(self.points, FEWEST_POINTS))
        yield tag("div", self._figures(charts), class_="charts")

    def _closable_run(self, run: Run) -> Html:
        alarms = [tag("span", f"{len(run.alarms)} alarms", class_="badge warn")] if run.alarms else []
        summary = tag("summary", f"{run.name} ", tag("span", run_state(run), class_="quiet"), *alarms)
        is_open = len(self.runs) <= OPEN_RUNS
        return tag("details", summary, tag("div", *self._run(run)), class_="run", open=is_open)

    def _run(self, run: Run) -> Iterator[Html]:
        yield alarm_list(run.alarms)
        if not run.metrics:
            yield tag("p", "No metrics are written yet.", class_="quiet")
        elif self.points >= FEWEST_POINTS:
            yield tag("div", self._figures(run_charts(run, self.colour_of, self.points)), class_="charts")
        yield picture_grid(run.pictures, self.addresses)
        if run.doctor:
            yield join([tag("h3", "Diagnosis of the teachers"), diagnosis(run.doctor)])
        yield recipe(run)

    def _figures(self, new: Sequence[Chart]) -> Html:
        return chart_figures(new, self.charts)


def _colours(inputs: ReportInputs, baselines: Sequence[str]) -> dict[str, int]:
    """The same colour for a name in every chart and figure."""
    teachers = [teacher_name(teacher) for run in inputs.runs for teacher in run.teachers]
    names = [*(record["model"] for record in inputs.results), *(run.name for run in inputs.runs)]
    return colours(list(dict.fromkeys([*baselines, *teachers])), names)


def _title(inputs: ReportInputs) -> str:
    if len(inputs.runs) == 1:
        return inputs.runs[0].name
    models = len({record["model"] for record in inputs.results})
    parts = [f"{len(inputs.runs)} runs" if inputs.runs else "", f"{models} encoders" if models else ""]
    return ", ".join(filter(None, parts)) or "Diagnosis and pictures"
