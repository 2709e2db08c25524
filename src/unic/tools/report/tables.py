"""The tables of the page as values: what stands in each cell, and what page.js sorts it by. page.html draws them."""

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from unic.tools.report.comparison import Cell, Comparison
from unic.tools.report.config_diff import MISSING


@dataclass(frozen=True, kw_only=True)
class Heading:
    """lines: smaller ones below the name. first: direction of the first click, which brings the best to the top."""

    name: str
    lines: Sequence[str] = ()
    is_numeric: bool = False
    first: str = "ascending"


@dataclass(frozen=True, kw_only=True)
class PageCell:
    """number: what a column of numbers is sorted by. change: a difference beside the value; None without its place."""

    text: str
    number: float | int | None = None
    is_best: bool = False
    change: str | None = None
    change_class: str = ""


@dataclass(frozen=True, kw_only=True)
class Row:
    """name: heading of the row; None without one. is_last_baseline: a line below sets the baselines apart."""

    name: str | None = None
    cells: Sequence[PageCell]
    is_baseline: bool = False
    is_last_baseline: bool = False


@dataclass(frozen=True, kw_only=True)
class PageTable:
    headings: Sequence[Heading]
    rows: Sequence[Row]
    note: str = ""


def result_table(comparison: Comparison) -> PageTable:
    """Encoders by evaluations, the best in bold, differences to the best baseline."""
    headings = [Heading(name="encoder")]
    for column in comparison.columns:
        dataset, *lines = comparison.header(column)
        first = "descending" if column.higher_is_better else "ascending"
        headings.append(Heading(name=dataset, lines=lines, is_numeric=True, first=first))
    has_change = [
        any(cells[number].difference is not None for cells in comparison.rows.values())
        for number in range(len(comparison.columns))
    ]
    rows = [
        Row(
            name=model,
            cells=[_result_cell(*pair) for pair in zip(cells, has_change, strict=True)],
            is_baseline=model in comparison.baselines,
            is_last_baseline=[model] == comparison.baselines[-1:],
        )
        for model, cells in comparison.rows.items()
    ]
    note = comparison.caption().replace("In brackets: difference", "Beside a value: its difference")
    return PageTable(headings=headings, rows=rows, note=note)


def _result_cell(cell: Cell, has_change: bool) -> PageCell:
    # The best of all, where it is no baseline, is better than every baseline, whichever way is up.
    classes = [
        "difference",
        *(["long"] if cell.decimals > 1 else []),
        *(["better"] if cell.is_best and cell.difference else []),
    ]
    return PageCell(
        text=cell.number(),
        number=cell.value,
        is_best=cell.is_best,
        change=cell.change().replace("-", "\u2212") if has_change else None,
        change_class=" ".join(classes),
    )


def table_of(records: Sequence[Mapping[str, Any]], names: Mapping[str, str]) -> PageTable:
    """A row for each record, a column for each field that any of them has.

    names: headings of fields, where the name alone would not be understood.
    """
    fields = list(dict.fromkeys(name for record in records for name in record))
    columns = {field: [record.get(field) for record in records] for field in fields}
    headings = [
        Heading(name=names.get(field, field.replace("_", " ")), is_numeric=_are_numbers(values))
        for field, values in columns.items()
    ]
    rows = [Row(cells=[value_cell(record.get(field)) for field in fields]) for record in records]
    return PageTable(headings=headings, rows=rows)


def differences_table(names: Sequence[str], differing: Mapping[str, Sequence[Any]]) -> PageTable:
    """A row for each name, a column for each field."""
    headings = [Heading(name=field, is_numeric=_are_numbers(values)) for field, values in differing.items()]
    rows = [
        Row(name=name, cells=[value_cell(values[number]) for values in differing.values()])
        for number, name in enumerate(names)
    ]
    return PageTable(headings=[Heading(name="run"), *headings], rows=rows)


def value_cell(value: Any) -> PageCell:
    return PageCell(text=text_of(value), number=value if is_number(value) else None)


def count_cell(value: float | int | None) -> PageCell:
    """A measurement or a count of a run, with thousands set apart."""
    return PageCell(text=f"{value:,}" if isinstance(value, int) else text_of(value), number=value)


def text_of(value: Any) -> str:
    """A value of a configuration or a measurement, for a cell; a dash for none."""
    if value is None or (isinstance(value, float) and not math.isfinite(value)):
        return "–"  # noqa: RUF001 (a dash)
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, float):
        return f"{value:.4g}" if abs(value) < 10_000 else f"{value:,.0f}"
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)


def is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def _are_numbers(values: Sequence[Any]) -> bool:
    """Whether they make a column of numbers."""
    return all(
        value is None or value == MISSING or (isinstance(value, int | float) and not isinstance(value, bool))
        for value in values
    )
