"""Tables of the page: they scroll in a box of their own, and page.js sorts them by any column."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

from unic.tools.report.config_diff import MISSING
from unic.tools.report.html import Html, tag, text_of

Record = Mapping[str, Any]


def sortable_table(head: Sequence[Html], body: Sequence[Html]) -> Html:
    table = tag("table", tag("thead", tag("tr", *head)), tag("tbody", *body), class_="sortable")
    is_tall = len(body) > 30
    # A box that scrolls must be reachable by keys.
    return tag(
        "div",
        table,
        class_="scroll tall" if is_tall else "scroll",
        tabindex=0,
        role="region",
        aria_label="Table",
    )


def heading(name: str, *, small: Sequence[str] = (), numeric: bool = False, first: str = "ascending") -> Html:
    """first: the direction of the first click, the one that brings the best to the top."""
    lines = [tag("small", line) for line in small if line]
    class_ = "number" if numeric else None
    button = tag("button", tag("span", name, class_="name"), *lines, type="button")
    return tag("th", button, scope="col", aria_sort="none", data_first=first, class_=class_)


def name_cell(name: str, *more: Html) -> Html:
    """The first cell of a row."""
    return tag("th", tag("span", name, *more, class_="name"), scope="row")


def number_cell(value: float | int | None) -> Html:
    """A dash for None, which is sorted to the end."""
    if value is None or not math.isfinite(value):
        return tag("td", text_of(None), class_="number")
    text = f"{value:,}" if isinstance(value, int) else text_of(value)
    return tag("td", text, class_="number", data_value=repr(value))


def value_cell(value: Any, numeric: bool) -> Html:
    """Of a column of numbers, or of one of words."""
    text = value if value == MISSING else text_of(value)
    if numeric:
        return tag("td", text, class_="number", data_value=repr(value) if is_number(value) else None)
    return tag("td", tag("span", text, class_="name"))


def table_of(records: Sequence[Record], names: Mapping[str, str]) -> Html:
    """A row for each record, a column for each field that any of them has.

    names: headings of fields, where the name alone would not be understood.
    """
    fields = list(dict.fromkeys(name for record in records for name in record))
    numeric = {f: all(_is_numeric(r.get(f)) for r in records) for f in fields}
    head = [heading(names.get(field, field.replace("_", " ")), numeric=numeric[field]) for field in fields]
    body = [
        tag("tr", *(value_cell(record.get(field), numeric[field]) for field in fields)) for record in records
    ]
    return sortable_table(head, body)


def differences_table(names: Sequence[str], differing: Mapping[str, Sequence[Any]]) -> Html:
    """A row for each name, a column for each field."""
    numeric = {field: all(map(_is_numeric, values)) for field, values in differing.items()}
    head = [heading("run"), *(heading(field, numeric=numeric[field]) for field in differing)]
    body = []
    for number, name in enumerate(names):
        cells = [value_cell(values[number], numeric[field]) for field, values in differing.items()]
        body.append(tag("tr", name_cell(name), *cells))
    return sortable_table(head, body)


def is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def _is_numeric(value: Any) -> bool:
    """Whether it may stand in a column of numbers."""
    return (
        value is None or value == MISSING or (isinstance(value, int | float) and not isinstance(value, bool))
    )
