"""A comparison as a table: for the terminal, for a README or an issue, for spreadsheets."""

import csv
import io
from collections.abc import Sequence

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from unic.core import markdown
from unic.core.results import Result
from unic.tools.report.comparison import Cell, Comparison, compare


def print_results(results: Sequence[Result], baselines: Sequence[str] = ()) -> None:
    """Shows the reported numbers on the terminal, turned where the table would be wider than that.

    baselines: names of models, such as the teachers; the others show their difference to the best of these.
    """
    console, comparison = Console(), compare(results, baselines).main()
    table = results_table(comparison)
    width = console.measure(table, options=console.options.update(width=10_000)).maximum
    console.print(table if width <= console.width else turned_table(comparison))


def results_table(comparison: Comparison) -> Table:
    """A row for each model, a column for each number."""
    table = Table(caption=comparison.caption() or None, caption_justify="left")
    table.add_column("model", no_wrap=True)
    for column in comparison.columns:
        header = "\n".join(map(escape, comparison.header(column)))
        table.add_column(header, justify="right", no_wrap=True)
    for model, cells in comparison.rows.items():
        end_section = [model] == comparison.baselines[-1:]
        table.add_row(escape(model), *map(_rich_cell, cells), end_section=end_section)
    return table


def turned_table(comparison: Comparison) -> Table:
    """A row for each number, a column for each model: for many data sets."""
    table = Table(caption=comparison.caption() or None, caption_justify="left")
    table.add_column("", overflow="fold")
    for model in comparison.rows:
        table.add_column(escape(model), justify="right", overflow="fold")
    for number, column in enumerate(comparison.columns):
        cells = (_rich_cell(cells[number]) for cells in comparison.rows.values())
        table.add_row(escape("  ".join(comparison.header(column))), *cells)
    return table


def _rich_cell(cell: Cell) -> str:
    return f"[bold]{cell.text()}[/bold]" if cell.is_best else cell.text()


def to_markdown(comparison: Comparison) -> str:
    """The table for a README or an issue, with a line's end."""
    headers = ["<br>".join(map(markdown.escape, comparison.header(column))) for column in comparison.columns]
    rows = [
        [markdown.escape(model), *(f"**{cell.text()}**" if cell.is_best else cell.text() for cell in cells)]
        for model, cells in comparison.rows.items()
    ]
    table = markdown.table(["model", *headers], rows, numbers_from=1)
    caption = markdown.escape(comparison.caption())
    return table + (f"\n\n{caption}" if caption else "") + "\n"


def to_csv(comparison: Comparison) -> str:
    """A line for each number, as spreadsheets and pandas read it."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(
        ["model", "is_baseline", "dataset", "evaluation", "metric", "protocol", "unit", "higher_is_better", "value",
         "spread", "is_best", "difference", "relative_percent", "data_hash"]
    )  # fmt: skip
    for model, cells in comparison.rows.items():
        for column, cell in zip(comparison.columns, cells, strict=True):
            if cell.value is None:
                continue
            row = [
                model, model in comparison.baselines, column.dataset, column.evaluation, column.metric,
                column.protocol, column.unit, column.higher_is_better, cell.value, cell.spread, cell.is_best,
                cell.difference, cell.percent, column.data_hash,
            ]  # fmt: skip
            writer.writerow([no_formula(value) if isinstance(value, str) else value for value in row])
    return text.getvalue()


def no_formula(text: str) -> str:
    """A text that no spreadsheet takes for a formula: an apostrophe stands before a sign that would begin one."""
    return f"'{text}" if text.startswith(("=", "+", "-", "@", "\t", "\r")) else text
