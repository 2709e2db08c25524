"""Encoders compared, number by number: the best, the difference to the best baseline, per cent of the best teacher.

A `Comparison` is computed once; the terminal, Markdown, CSV, the page and the figures show it or some of its columns.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple

from unic.core.results import Result

UNTRAINED = " untrained"
"""How the name of a student ends that was evaluated as it was initialised."""
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
    """One number of one model.

    difference: to the best baseline, in the unit of the column; None without one, and for baselines.
    decimals: how many are shown.
    spread: standard deviation over seeds, where there were several.
    percent: of the best teacher, above 100 when this is better; None where either is missing or not positive.
    """

    value: float | None
    is_best: bool
    difference: float | None
    decimals: int
    spread: float | None = None
    percent: float | None = None

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


@dataclass(frozen=True)
class Comparison:
    """A table of encoders by numbers.

    rows: by model, a cell for each column; baselines first.
    baselines: names of the models that the others are compared with. Without any, per cent are of the best encoder.
    main_columns: those with the first metric of an evaluation, which is the one it reports.
    """

    columns: list[Column]
    rows: dict[str, list[Cell]]
    baselines: list[str]
    main_columns: set[Column]

    def main(self) -> "Comparison":
        """Only the number that each evaluation reports."""
        return self._select([column in self.main_columns for column in self.columns])

    def relative(self) -> "Comparison":
        """Without the columns in which no ratio makes sense, because values are missing, zero or negative."""
        return self._select(
            [any(cell.percent is not None for cell in cells) for cells in self._cells_of_columns()]
        )

    def percents(self, model: str) -> list[float | None]:
        return [cell.percent for cell in self.rows[model]]

    def mean_percent(self, model: str) -> float | None:
        """None unless the model has a value in every column, as other means could not be compared."""
        percents = [percent for percent in self.percents(model) if percent is not None]
        return sum(percents) / len(percents) if percents and len(percents) == len(self.columns) else None

    def ranked_students(self) -> list[str]:
        """Models that are no baselines and are trained: those with the greatest mean first, those without one last."""
        students = [
            model for model in self.rows if model not in self.baselines and not model.endswith(UNTRAINED)
        ]
        return sorted(students, key=lambda model: -(self.mean_percent(model) or 0.0))

    def header(self, column: Column) -> list[str]:
        """Lines of a header; the protocol, and the hash of the data, are named where they tell two columns apart."""
        alike = [other for other in self.columns if other[:3] == column[:3]]
        arrow = "" if column.higher_is_better else " ↓"
        lines = [column.dataset, f"{column.evaluation} {column.metric}".strip(), f"{column.unit}{arrow}"]
        if len({other.protocol for other in alike}) > 1:
            lines.append(column.protocol)
        if len({other.data_hash for other in alike}) > 1:
            lines.append(f"data {column.data_hash[:8] or 'unknown'}")
        return lines

    def caption(self) -> str:
        """What the brackets and arrows of the table mean; empty where there are none."""
        parts = []
        if any(self.has_differences()):
            goal = (
                self.baselines[0] if len(self.baselines) == 1 else f"the best of {', '.join(self.baselines)}"
            )
            parts.append(f"In brackets: difference to {goal}, in the unit of the column (% in points).")
        if not all(column.higher_is_better for column in self.columns):
            parts.append("↓ lower is better.")
        return " ".join(parts)

    def has_differences(self) -> list[bool]:
        """Of each column, whether any model has a difference to a baseline there."""
        return [any(cell.difference is not None for cell in cells) for cells in self._cells_of_columns()]

    def _cells_of_columns(self) -> list[list[Cell]]:
        return [[cells[number] for cells in self.rows.values()] for number in range(len(self.columns))]

    def _select(self, chosen: Sequence[bool]) -> "Comparison":
        numbers = [number for number, is_chosen in enumerate(chosen) if is_chosen]
        rows = {model: [cells[number] for number in numbers] for model, cells in self.rows.items()}
        return replace(self, columns=[self.columns[number] for number in numbers], rows=rows)


def compare(results: Sequence[Result], baselines: Sequence[str] = ()) -> Comparison:
    """Columns as they first occur. Of a number measured twice the later one counts.

    baselines: names of models, such as the teachers; those without a result are passed over.
    """
    spreads, numbers = _split_spreads(results)
    values = {(result.model, _column(result)): result.value for result in numbers}
    models = dict.fromkeys(result.model for result in results)
    present = [model for model in models if model in baselines]
    columns = list(dict.fromkeys(map(_column, numbers)))
    rows: dict[str, list[Cell]] = {
        model: [] for model in [*present, *(m for m in models if m not in present)]
    }
    for column in columns:
        best_of = max if column.higher_is_better else min
        known = {model: values.get((model, column), math.nan) for model in rows}
        known = {model: value for model, value in known.items() if math.isfinite(value)}
        best = best_of(known.values(), default=None)
        best_baseline = best_of((known[model] for model in present if model in known), default=None)
        for model, cells in rows.items():
            value = known.get(model)
            cells.append(
                Cell(
                    value,
                    is_best=value is not None and value == best,
                    difference=(
                        None
                        if value is None or best_baseline is None or model in present
                        else value - best_baseline
                    ),
                    decimals=1 if column.unit == "%" else 3,
                    spread=spreads.get((model, column.metric, _evaluated(column))),
                    percent=ratio(value, best_baseline if present else best, column.higher_is_better),
                )
            )
    first: dict[tuple, Column] = {}
    for result in numbers:
        first.setdefault((result.model, _evaluated(result)), _column(result))
    return Comparison(columns, rows, present, set(first.values()))


def ratio(value: float | None, goal: float | None, higher_is_better: bool) -> float | None:
    """In per cent, above 100 when `value` is better than `goal`; None where either is missing or not positive."""
    if value is None or goal is None or not math.isfinite(value) or min(value, goal) <= 0:
        return None
    return 100 * (value / goal if higher_is_better else goal / value)


def _split_spreads(results: Sequence[Result]) -> tuple[dict[tuple, float], list[Result]]:
    """Spreads, by the number they belong to, and all other results."""
    measured = {(result.model, result.metric, _evaluated(result)) for result in results}
    spreads, numbers = {}, []
    for result in results:
        number = (result.model, result.metric.removesuffix(_SPREAD), _evaluated(result))
        if result.metric.endswith(_SPREAD) and number in measured:
            spreads[number] = result.value
        else:
            numbers.append(result)
    return spreads, numbers


def _evaluated(of: Result | Column) -> tuple[str, str, str, str]:
    """One evaluation on one set of images; it may give several metrics."""
    return (of.dataset, of.evaluation, of.protocol, of.data_hash)


def _column(result: Result) -> Column:
    return Column(*(getattr(result, name) for name in Column._fields))
