"""Tables of scores: a row for each model, a column for each thing measured, the best in bold.

They take the records of results.jsonl as plain mappings, so results of other tools can stand beside ours.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

from rich.console import Console
from rich.markup import escape
from rich.table import Table

Record = Mapping[str, Any]


class Column(NamedTuple):
    """Numbers that may be compared: they are alike in all of this."""

    dataset: str
    evaluation: str
    metric: str
    protocol: str
    unit: str
    higher_is_better: bool


@dataclass(frozen=True)
class Cell:
    """difference: to the best baseline, in the unit of the column; None without one, and for baselines."""

    value: float | None
    is_best: bool
    difference: float | None
    decimals: int

    def text(self) -> str:
        if self.value is None:
            return "–"  # noqa: RUF001 (a dash: nothing was measured)
        text = f"{self.value:.{self.decimals}f}"
        return text if self.difference is None else f"{text} ({self.difference:+.{self.decimals}f})"


def results_table(results: Sequence[Record], baselines: Sequence[str] = ()) -> Table:
    """A table for the terminal.

    baselines: names of models, such as the teachers; the others show their difference to the best of these.
    """
    columns, rows = _grid(results, baselines)
    table = Table(caption=_caption(columns, rows, baselines) or None, caption_justify="left")
    table.add_column("model", no_wrap=True)
    for column in columns:
        table.add_column("\n".join(map(escape, _header(column, columns))), justify="right")
    for model, cells in rows.items():
        texts = [f"[bold]{cell.text()}[/bold]" if cell.is_best else cell.text() for cell in cells]
        table.add_row(escape(model), *texts, end_section=model == _last_baseline(rows, baselines))
    return table


def print_results(results: Sequence[Record], baselines: Sequence[str] = ()) -> None:
    """Shows the reported numbers on the terminal."""
    Console().print(results_table(reported(results), baselines))


def to_markdown(results: Sequence[Record], baselines: Sequence[str] = ()) -> str:
    """The same table for a README or an issue."""
    columns, rows = _grid(results, baselines)
    lines = [
        ["model", *("<br>".join(_header(column, columns)) for column in columns)],
        [":--", *("--:" for _ in columns)],
    ]
    for model, cells in rows.items():
        texts = [f"**{cell.text()}**" if cell.is_best else cell.text() for cell in cells]
        lines.append([model.replace("|", "\\|"), *texts])
    caption = _caption(columns, rows, baselines)
    table = "\n".join(f"| {' | '.join(line)} |" for line in lines)
    return table + (f"\n\n{caption}" if caption else "") + "\n"


def reported(results: Sequence[Record]) -> list[Record]:
    """The number each evaluation reports: its first one for each model, data set and protocol."""
    first: dict[tuple, str] = {}
    for record in results:
        first.setdefault(_source(record), record["metric"])
    return [record for record in results if first[_source(record)] == record["metric"]]


def _source(record: Record) -> tuple:
    return tuple(record.get(name) for name in ("model", "dataset", "evaluation", "protocol"))


def _grid(results: Sequence[Record], baselines: Sequence[str]) -> tuple[list[Column], dict[str, list[Cell]]]:
    """Columns as they first occur, baselines first. Of a number measured twice the later one counts."""
    values: dict[tuple[str, Column], float] = {}
    for record in results:
        value = float(record["value"])
        if math.isfinite(value):
            values[record["model"], _column(record)] = value
    models = dict.fromkeys(record["model"] for record in results)
    models = [*(m for m in models if m in baselines), *(m for m in models if m not in baselines)]
    columns = list(dict.fromkeys(_column(record) for record in results))
    rows: dict[str, list[Cell]] = {model: [] for model in models}
    for column in columns:
        best_of = max if column.higher_is_better else min
        here = {model: values[model, column] for model in models if (model, column) in values}
        best = best_of(here.values(), default=None)
        goal = best_of((value for model, value in here.items() if model in baselines), default=None)
        for model in models:
            value = here.get(model)
            difference = None
            if value is not None and goal is not None and model not in baselines:
                difference = value - goal
            is_best = value is not None and value == best
            rows[model].append(Cell(value, is_best, difference, 1 if column.unit == "%" else 3))
    return columns, rows


def _column(record: Record) -> Column:
    return Column(
        record["dataset"],
        record.get("evaluation", ""),
        record["metric"],
        record.get("protocol", ""),
        record.get("unit", "%"),
        record.get("higher_is_better", True),
    )


def _header(column: Column, columns: Sequence[Column]) -> list[str]:
    """Lines of a header; the protocol is named where it alone tells two columns apart."""
    alike = [other for other in columns if other[:3] == column[:3]]
    arrow = "" if column.higher_is_better else " ↓"
    lines = [column.dataset, f"{column.evaluation} {column.metric}".strip(), f"{column.unit}{arrow}"]
    return lines + ([column.protocol] if len(alike) > 1 else [])


def _caption(columns: Sequence[Column], rows: Mapping[str, list[Cell]], baselines: Sequence[str]) -> str:
    parts = []
    if any(model in baselines for model in rows):
        parts.append("In brackets: difference to the best baseline, in the unit of the column (% in points).")
    if not all(column.higher_is_better for column in columns):
        parts.append("↓ lower is better.")
    return " ".join(parts)


def _last_baseline(rows: Mapping[str, list[Cell]], baselines: Sequence[str]) -> str | None:
    return next((model for model in reversed(list(rows)) if model in baselines), None)
