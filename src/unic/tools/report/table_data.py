"""Tables of values of any kind, as page.html draws them and page.js sorts them; and what differs between recipes."""

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

MISSING = "(not there)"


@dataclass(frozen=True, kw_only=True)
class ValueTable:
    """A value for each row and column.

    columns: pairs of a heading and the values of all rows.
    rows: names of the rows, below the heading `corner`; None for rows without a name.
    descending: headings whose first click brings the greatest to the top.
    thousands: whole numbers are measurements, with thousands set apart; otherwise they may be seeds or names.
    """

    columns: Sequence[tuple[str, Sequence[Any]]]
    rows: Sequence[str] | None = None
    corner: str = ""
    descending: Sequence[str] = ()
    thousands: bool = False
    note: str = ""

    @property
    def num_rows(self) -> int:
        return max([len(self.rows or ()), *(len(values) for _, values in self.columns)])


def table_of(records: Sequence[Mapping[str, Any]], names: Mapping[str, str], note: str = "") -> ValueTable:
    """A row for each record, a column for each field that any of them has.

    names: headings of fields, where the name alone would not be understood.
    """
    fields = dict.fromkeys(name for record in records for name in record)
    columns = [
        (names.get(field, field.replace("_", " ")), [record.get(field) for record in records])
        for field in fields
    ]
    return ValueTable(columns=columns, note=note)


def text_of(value: Any) -> str:
    """A value of a configuration or a measurement, for a cell; a dash for none."""
    if value is None or (isinstance(value, float) and not math.isfinite(value)):
        return "–"  # noqa: RUF001 (a dash)
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, float):
        return f"{value:.4g}" if abs(value) < 10_000 else f"{value:,.0f}"
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)


def is_finite(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def are_numbers(values: Sequence[Any]) -> bool:
    """Whether they make a column of numbers, which may have gaps."""
    return all(
        value is None or value == MISSING or (isinstance(value, int | float) and not isinstance(value, bool))
        for value in values
    )


def flat(values: Mapping[str, Any], where: str = "") -> dict[str, Any]:
    """Leaves by path: {"data": {"views": {"flip": 0.5}}} gives {"data.views.flip": 0.5}. Lists are leaves."""
    leaves = {}
    for name, value in values.items():
        if isinstance(value, Mapping) and value:
            leaves |= flat(value, f"{where}{name}.")
        else:
            leaves[f"{where}{name}"] = value
    return leaves


def split_by_difference(
    several: Sequence[Mapping[str, Any]],
) -> tuple[dict[str, Any], dict[str, list[Any]]]:
    """Leaves that are the same everywhere, and those that differ, with a value (or MISSING) for each of `several`."""
    flats = [flat(one) for one in several]
    names = dict.fromkeys(name for leaves in flats for name in leaves)
    shared, differing = {}, {}
    for name in names:
        values = [leaves.get(name, MISSING) for leaves in flats]
        if all(value == values[0] for value in values):
            shared[name] = values[0]
        else:
            differing[name] = values
    return shared, differing
