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

# How the name of a spread over seeds ends, after that of its number.
_SPREAD = "_std"


class Column(NamedTuple):
    """Numbers that may be compared: they are alike in all of this."""

    dataset: str
    evaluation: str
    metric: str
    protocol: str
    unit: str
    higher_is_better: bool
    data_hash: str = ""
    """Of the images; two data sets of one name, such as the folders behind image_folder, are two columns."""


@dataclass(frozen=True)
class Cell:
    """difference: to the best baseline, in the unit of the column; None without one, and for baselines.

    spread: over seeds, where there were several: their standard deviation.
    """

    value: float | None
    is_best: bool
    difference: float | None
    decimals: int
    spread: float | None = None

    def text(self) -> str:
        return self.number() if self.difference is None else f"{self.number()} ({self.change()})"

    def number(self) -> str:
        """The value alone, with its spread."""
        if self.value is None:
            return "–"  # noqa: RUF001 (a dash: nothing was measured)
        spread = "" if self.spread is None else f" ± {self.spread:.{self.decimals}f}"
        return f"{self.value:.{self.decimals}f}{spread}"

    def change(self) -> str:
        """The difference alone; empty without one."""
        return "" if self.difference is None else f"{self.difference:+.{self.decimals}f}"


def results_table(results: Sequence[Record], baselines: Sequence[str] = ()) -> Table:
    """A table for the terminal.

    baselines: names of models, such as the teachers; the others show their difference to the best of these.
    """
    columns, rows = grid(results, baselines)
    table = Table(caption=caption(columns, rows, baselines) or None, caption_justify="left")
    table.add_column("model", no_wrap=True)
    for column in columns:
        table.add_column("\n".join(map(escape, header(column, columns))), justify="right", no_wrap=True)
    for model, cells in rows.items():
        end_section = model == _last_baseline(rows, baselines)
        table.add_row(escape(model), *map(_marked, cells), end_section=end_section)
    return table


def turned_table(results: Sequence[Record], baselines: Sequence[str] = ()) -> Table:
    """The same with a row for each thing measured and a column for each model: for many data sets."""
    columns, rows = grid(results, baselines)
    table = Table(caption=caption(columns, rows, baselines) or None, caption_justify="left")
    table.add_column("", overflow="fold")
    for model in rows:
        table.add_column(escape(model), justify="right", overflow="fold")
    for number, column in enumerate(columns):
        of_models = (_marked(cells[number]) for cells in rows.values())
        table.add_row(escape("  ".join(header(column, columns))), *of_models)
    return table


def print_results(results: Sequence[Record], baselines: Sequence[str] = ()) -> None:
    """Shows the reported numbers on the terminal, turned where the table would be wider than that."""
    console, shown = Console(), reported(results)
    table = results_table(shown, baselines)
    width = console.measure(table, options=console.options.update(width=10_000)).maximum
    console.print(table if width <= console.width else turned_table(shown, baselines))


def _marked(cell: Cell) -> str:
    return f"[bold]{cell.text()}[/bold]" if cell.is_best else cell.text()


def to_markdown(results: Sequence[Record], baselines: Sequence[str] = ()) -> str:
    """The same table for a README or an issue."""
    columns, rows = grid(results, baselines)
    lines = [
        ["model", *("<br>".join(header(column, columns)) for column in columns)],
        [":--", *("--:" for _ in columns)],
    ]
    for model, cells in rows.items():
        texts = [f"**{cell.text()}**" if cell.is_best else cell.text() for cell in cells]
        lines.append([model.replace("|", "\\|"), *texts])
    note = caption(columns, rows, baselines)
    table = "\n".join(f"| {' | '.join(line)} |" for line in lines)
    return table + (f"\n\n{note}" if note else "") + "\n"


def reported(results: Sequence[Record]) -> list[Record]:
    """The number each evaluation reports, its first one for each model, data set and protocol; with its spread."""
    first: dict[tuple, str] = {}
    for record in results:
        first.setdefault(_source(record), record["metric"])
    return [record for record in results if record["metric"].removesuffix(_SPREAD) == first[_source(record)]]


def _source(record: Record) -> tuple:
    """Of one run of one evaluation, as the names of its column have it."""
    column = _column(record)
    return (record["model"], column.dataset, column.evaluation, column.protocol, column.data_hash)


def grid(results: Sequence[Record], baselines: Sequence[str]) -> tuple[list[Column], dict[str, list[Cell]]]:
    """Columns as they first occur, baselines first. Of a number measured twice the later one counts."""
    spreads, numbers = _apart(results)
    measured = {(record["model"], _column(record)): float(record["value"]) for record in numbers}
    values = {place: value for place, value in measured.items() if math.isfinite(value)}
    models = dict.fromkeys(record["model"] for record in results)
    models = [*(m for m in models if m in baselines), *(m for m in models if m not in baselines)]
    columns = list(dict.fromkeys(_column(record) for record in numbers))
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
            source = (model, column.dataset, column.evaluation, column.protocol, column.data_hash)
            spread = spreads.get((*source, column.metric))
            rows[model].append(Cell(value, is_best, difference, 1 if column.unit == "%" else 3, spread))
    return columns, rows


def _apart(results: Sequence[Record]) -> tuple[dict[tuple, float], list[Record]]:
    """Spreads, by the number they belong to, and all other records."""
    measured = {(*_source(record), record["metric"]) for record in results}
    spreads, numbers = {}, []
    for record in results:
        of_number = (*_source(record), record["metric"].removesuffix(_SPREAD))
        if record["metric"].endswith(_SPREAD) and of_number in measured:
            spreads[of_number] = float(record["value"])
        else:
            numbers.append(record)
    return spreads, numbers


def _column(record: Record) -> Column:
    return Column(
        record["dataset"],
        record.get("evaluation", ""),
        record["metric"],
        record.get("protocol", ""),
        record.get("unit", "%"),
        record.get("higher_is_better", True),
        record.get("data_hash") or "",
    )


def header(column: Column, columns: Sequence[Column]) -> list[str]:
    """Lines of a header; the protocol, and the hash of the data, are named where they tell two columns apart."""
    alike = [other for other in columns if other[:3] == column[:3]]
    arrow = "" if column.higher_is_better else " ↓"
    lines = [column.dataset, f"{column.evaluation} {column.metric}".strip(), f"{column.unit}{arrow}"]
    if len({other.protocol for other in alike}) > 1:
        lines.append(column.protocol)
    if len({other.data_hash for other in alike}) > 1:
        lines.append(f"data {column.data_hash[:8] or 'unknown'}")
    return lines


def caption(columns: Sequence[Column], rows: Mapping[str, list[Cell]], baselines: Sequence[str]) -> str:
    parts = []
    if any(cell.difference is not None for cells in rows.values() for cell in cells):
        there = [model for model in rows if model in baselines]
        goal = there[0] if len(there) == 1 else f"the best of {', '.join(there)}"
        parts.append(f"In brackets: difference to {goal}, in the unit of the column (% in points).")
    if not all(column.higher_is_better for column in columns):
        parts.append("↓ lower is better.")
    return " ".join(parts)


def _last_baseline(rows: Mapping[str, list[Cell]], baselines: Sequence[str]) -> str | None:
    return next((model for model in reversed(list(rows)) if model in baselines), None)
