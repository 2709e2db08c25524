"""The parts of the page as HTML: tables, lists and places for charts. What they say is decided elsewhere."""

import json
import math
from collections.abc import Mapping, Sequence
from typing import Any

from unic.tools.report.charts import Chart, ranked
from unic.tools.report.config_diff import flat, split_by_difference
from unic.tools.report.html import Html, join, tag, text_of
from unic.tools.report.html_tables import (  # fmt: skip
    differences_table,
    heading,
    is_number,
    name_cell,
    number_cell,
    sortable_table,
    table_of,
)
from unic.tools.report.inputs import ReportPicture, Run
from unic.tools.report.relative_to_teacher import Relative
from unic.tools.report.results_table import Cell, Column, caption, grid, header

Record = Mapping[str, Any]

MAX_ROWS = 400
"""Of the table of where numbers are from."""
# Headings of doctor.json, where a key alone would not be understood.
_DOCTOR = {
    "token": "tokens", "norm": "mean norm", "effective_rank": "effective rank", "dead_share": "dead dimensions (%)",
    "outlier_share": "outlier tokens (%)", "largest_share": "largest dimension (%)",
    "images_per_second": "images/s", "memory_mb": "memory (MB)", "parameters_mb": "parameters (MB)",
    "expected_loss": "expected loss", "cka": "CKA", "neighbours": "common neighbours",
    "a": "teacher", "b": "other teacher",
}  # fmt: skip


def lead(found: Relative, baselines: Sequence[str]) -> Html:
    """What the numbers come to, in a sentence for each of the best students."""
    goal = "the best teacher" if len(baselines) != 1 else baselines[0]
    sentences = []
    for name in ranked(found, baselines)[:3] if found.of_teachers else []:
        mean, values = found.mean(name), found.values[name]
        if mean is None:
            continue
        column = found.columns[0]
        where = f" on {column.dataset} ({column.evaluation} {column.metric})."
        if len(values) > 1:
            ahead = sum(value is not None and value > 100 for value in values)
            where = f" in the mean over {len(values)} evaluations; it is ahead in {ahead or 'none'}."
        reaches = [tag("strong", name), " reaches ", tag("strong", f"{mean:.1f} %"), f" of {goal}"]
        sentences.append(tag("li", *reaches, where))
    return tag("ul", *sentences, class_="lead") if sentences else Html("")


def notes(remarks: Sequence[str]) -> Html:
    if not remarks:
        return Html("")
    return tag(
        "ul",
        *(tag("li", remark) for remark in remarks),
        class_="alarms",
        aria_label="Remarks on what was read",
    )


def result_table(results: Sequence[Record], baselines: Sequence[str]) -> Html:
    """Encoders by evaluations, the best in bold, differences to the best baseline."""
    columns, rows = grid(results, baselines)
    head = [heading("encoder")] + [_column_heading(column, columns) for column in columns]
    last = [model for model in rows if model in baselines][-1:]
    with_difference = {
        n for row in rows.values() for n, cell in enumerate(row) if cell.difference is not None
    }
    body = []
    for model, cells in rows.items():
        badge = [tag("span", "baseline", class_="badge")] if model in baselines else []
        row = [
            name_cell(model, *badge),
            *(_cell(cell, number in with_difference) for number, cell in enumerate(cells)),
        ]
        body.append(tag("tr", *row, class_="last-baseline" if [model] == last else None))
    words = caption(columns, rows, baselines)
    words = words.replace("In brackets: difference", "Beside a value: its difference")
    return join([sortable_table(head, body), tag("p", words, class_="note") if words else ""])


def _column_heading(column: Column, columns: Sequence[Column]) -> Html:
    dataset, *rest = header(column, columns)
    first = "descending" if column.higher_is_better else "ascending"
    return heading(dataset, small=rest, numeric=True, first=first)


def _cell(cell: Cell, with_difference: bool) -> Html:
    """The text of the cell, with its difference set apart; numbers above each other in the whole column."""
    # The best of all, where it is no baseline, is better than every baseline, whichever way is up.
    class_ = "difference" + " long" * (cell.decimals > 1) + " better" * bool(cell.is_best and cell.difference)
    change = [tag("span", cell.change().replace("-", "\u2212"), class_=class_)] if with_difference else []
    number = tag("strong", cell.number()) if cell.is_best else cell.number()
    value = None if cell.value is None else repr(cell.value)
    return tag("td", number, *change, class_="number", data_value=value)


def chart_figures(new: Sequence[Chart], charts: dict[str, Chart]) -> Html:
    """A place for each chart; the chart itself joins `charts`, which page.js reads."""
    figures = []
    for chart in new:
        name = f"chart-{len(charts)}"
        charts[name] = chart
        words = [chart["title"]] + ([tag("span", chart["unit"], class_="unit")] if chart.get("unit") else [])
        parts = [tag("figcaption", *words)]
        if gaps := chart.get("gaps"):
            parts[0] = tag(
                "figcaption", *words, tag("span", f"{gaps} values are not finite: gaps", class_="unit")
            )
        is_wide = chart["title"] == "Loss" and len(new) > 1
        class_ = "chart relative" if chart["kind"] != "lines" else "chart wide" if is_wide else "chart"
        figures.append(tag("figure", *parts, class_=class_, data_chart=name))
    return join(figures)


def run_state(run: Run) -> str:
    """ "finished; step 3124, epoch 4; loss 0.402, validation 0.391"."""
    if not run.metrics:
        return "finished; no metrics" if run.is_finished else "not finished; no metrics yet"
    last = run.metrics[-1]
    epochs = flat(run.config or {}).get("optim.epochs")
    of_all = f" of {text_of(epochs)}" if epochs and not run.is_finished else ""
    epoch = f", epoch {text_of(last['epoch'])}{of_all}" if isinstance(last.get("epoch"), int | float) else ""
    values = {word: _last(run, key) for word, key in (("loss", "loss"), ("validation", "val/loss"))}
    losses = ", ".join(f"{word} {value:.4g}" for word, value in values.items() if value is not None)
    state = "finished" if run.is_finished else "not finished"
    return f"{state}; step {last['step']:,}{epoch}" + (f"; {losses}" if losses else "")


def table_of_runs(runs: Sequence[Run]) -> Html:
    columns = [
        ("step", "step", "descending"), ("loss", "loss", "ascending"), ("val/loss", "validation loss", "ascending"),
        ("fidelity/knn", "k-NN (%)", "descending"), ("images_per_second", "images/s", "descending"),
    ]  # fmt: skip
    there = [
        (key, name, first) for key, name, first in columns if any(_last(run, key) is not None for run in runs)
    ]
    head = [heading("run"), heading("state"), *(heading(n, numeric=True, first=f) for _, n, f in there)]
    head.append(heading("alarms", numeric=True, first="descending"))
    body = []
    for run in runs:
        cells = [
            name_cell(run.name),
            tag("td", "finished" if run.is_finished else "not finished"),
        ]
        cells += [number_cell(_last(run, key)) for key, _, _ in there]
        body.append(tag("tr", *cells, number_cell(len(run.alarms))))
    return sortable_table(head, body)


def _last(run: Run, key: str) -> float | int | None:
    """The newest finite value."""
    values = (record.get(key) for record in reversed(run.metrics))
    return next((v for v in values if isinstance(v, int | float) and math.isfinite(v)), None)


def comparison_of_recipes(runs: Sequence[Run]) -> Html:
    """A row for each run, a column for each field in which not all are the same."""
    with_recipe = [run for run in runs if run.config is not None]
    shared, differing = split_by_difference([run.config or {} for run in with_recipe])
    if not differing:
        return tag("p", "In nothing: the recipes of these runs are all the same.", class_="quiet")
    words = f"{len(differing)} of {len(differing) + len(shared)} fields differ."
    return join(
        [tag("p", words, class_="note"), differences_table([run.name for run in with_recipe], differing)]
    )


def alarm_list(alarms: Sequence[Record]) -> Html:
    if not alarms:
        return Html("")
    items = []
    for alarm in alarms:
        step, kind = alarm.get("step"), alarm.get("alarm") or "alarm"
        where = f"step {step:,}" if isinstance(step, int) else ""
        words = alarm.get("message") or ", ".join(f"{name} {text_of(value)}" for name, value in alarm.items())
        items.append(tag("li", tag("span", f"{kind} {where}".strip(), class_="where"), str(words)))
    return tag("ul", *items, class_="alarms", aria_label="Alarms")


def picture_grid(pictures: Sequence[ReportPicture], addresses: Mapping[ReportPicture, str]) -> Html:
    """addresses: those without one are left out."""
    figures = []
    for picture in pictures:
        if address := addresses.get(picture):
            image = Html(tag("img", src=address, alt=picture.title).removesuffix("</img>"))
            words = tag("figcaption", tag("b", picture.title), picture.caption)
            figures.append(tag("figure", image, words))
    return tag("div", *figures, class_="pictures") if figures else Html("")


def diagnosis(doctor: Record) -> Html:
    """doctor.json: warnings, teachers, and pairs of them."""
    listed = doctor.get("warnings")
    warnings = (
        [warning for warning in listed if isinstance(warning, dict)] if isinstance(listed, list) else []
    )
    facts = [f"{name} {text_of(doctor[name])}" for name in ("data", "images") if name in doctor]
    parts: list[str] = [tag("p", ", ".join(facts), class_="note")] if facts else []
    if warnings:
        items = [
            tag("li", tag("span", text_of(w.get("kind")), class_="where"), text_of(w.get("message")))
            for w in warnings
        ]
        parts.append(tag("ul", *items, class_="alarms"))
    for key, title in (("teachers", "Teachers"), ("pairs", "Pairs of teachers")):
        records = doctor.get(key)
        rows = [record for record in records if isinstance(record, dict)] if isinstance(records, list) else []
        if rows:
            parts += [tag("h3", title), table_of([_in_per_cent(row) for row in rows], _DOCTOR)]
    return join(parts)


def _in_per_cent(row: Record) -> dict[str, Any]:
    """Shares in per cent."""
    return {
        n: 100 * value if n.endswith("_share") and is_number(value) else value for n, value in row.items()
    }


def recipe(run: Run) -> Html:
    if run.config is None:
        return Html("")
    text = json.dumps(run.config, indent=2, ensure_ascii=False)
    return tag("details", tag("summary", "The whole recipe (config.json)"), tag("pre", text, tabindex=0))


def environments(runs: Sequence[Run]) -> Html:
    """What is the same everywhere as a list, what is not as a table."""
    known = [run for run in runs if run.environment]
    if not known:
        return Html("")
    shared, differing = split_by_difference([_readable(run.environment or {}) for run in known])
    parts = []
    if shared:
        rows = [
            tag("tr", tag("th", name), tag("td", text_of(value))) for name, value in _gathered(shared).items()
        ]
        table = tag("div", tag("table", tag("tbody", *rows), class_="facts"), class_="scroll")
        parts.append(table if len(known) == 1 else join([tag("h3", "The same in all runs"), table]))
    if differing:
        parts += [
            tag("h3", "Different between runs"),
            differences_table([run.name for run in known], differing),
        ]
    return join(parts)


def _readable(environment: Record) -> dict[str, Any]:
    """The command as a line, as it was typed."""
    command = environment.get("command")
    line = " ".join(map(str, command)) if isinstance(command, list) else command
    return {**environment, **({"command": line} if command else {})}


def _gathered(facts: Mapping[str, Any]) -> dict[str, Any]:
    """Versions of packages in one line."""
    versions = {
        name.removeprefix("packages."): v for name, v in facts.items() if name.startswith("packages.")
    }
    rest = {name: value for name, value in facts.items() if not name.startswith("packages.")}
    line = ", ".join(f"{name} {text_of(version)}" for name, version in versions.items())
    return rest | ({"packages": line} if line else {})


def provenance(results: Sequence[Record]) -> Html:
    """Which weights and data each number is from, once for each evaluation."""
    fields = ("model", "dataset", "evaluation", "protocol", "model_hash", "data_hash")
    found: dict[tuple, Record] = {}
    for record in results:
        found[tuple(str(record.get(field)) for field in fields)] = record
    fields = tuple(
        f
        for f in (*fields, "seed", "unic", "time", "seconds")
        if any(record.get(f) not in (None, "") for record in found.values())
    )
    rows = [{f: _short(f, record.get(f)) for f in fields} for record in list(found.values())[:MAX_ROWS]]
    if not rows:
        return Html("")
    words = f"Where the numbers are from ({len(found)} evaluations)"
    left_out = len(found) - len(rows)
    rest = [tag("p", f"{left_out} more are in results.csv.", class_="note")] if left_out else []
    names = {"model": "encoder", "model_hash": "weights", "data_hash": "data"}
    return tag("details", tag("summary", words), table_of(rows, names), *rest)


def _short(field: str, value: Any) -> Any:
    return str(value)[:12] if field.endswith("_hash") and value else value
