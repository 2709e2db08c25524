"""Every encoder relative to the best teacher, evaluation by evaluation: the figure by which UNIC is known."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from unic.core.errors import ConfigError
from unic.core.plugins import unknown
from unic.teachers import SCHEMES, TEACHERS, short_name
from unic.tools.report.results_table import Cell, Column, grid

Record = Mapping[str, Any]

BEST_TEACHER = "best-teacher"
UNTRAINED = " untrained"


@dataclass(frozen=True)
class Relative:
    """values: by encoder, a value in per cent for each column; 100 is the goal. None where there is none.

    of_teachers: the goal is the best baseline; else, without one among the encoders, the best of all.
    """

    columns: list[Column]
    values: dict[str, list[float | None]]
    cells: dict[str, list[Cell]]
    of_teachers: bool

    def mean(self, model: str) -> float | None:
        """Over the columns; None unless the encoder has a value in every one, as other means could not be compared."""
        known = [value for value in self.values[model] if value is not None]
        return sum(known) / len(known) if known and len(known) == len(self.columns) else None


def baselines(results: Sequence[Record], teachers: Sequence[str], baseline: str = BEST_TEACHER) -> list[str]:
    """Names of the models that the others are compared with.

    results: each may have a `reference`, what was evaluated under the name.
    teachers: references in the recipes of the runs. Where none was measured, what is a teacher by name or URI counts.
    baseline: BEST_TEACHER, or the name of one model. Raises ConfigError for a name that has no result.
    """
    references = {record["model"]: str(record.get("reference") or record["model"]) for record in results}
    if baseline != BEST_TEACHER:
        if baseline not in references:
            raise ConfigError(unknown("baseline", baseline, [BEST_TEACHER, *references]))
        return [baseline]
    named = {teacher_name(teacher) for teacher in teachers}
    found = [
        model for model, reference in references.items() if teacher_name(reference) in named or model in named
    ]
    return found or [model for model, reference in references.items() if _is_teacher(reference)]


def relative(results: Sequence[Record], baselines: Sequence[str]) -> Relative:
    """One column for each number; of a number measured twice the later one counts.

    Columns in which no ratio makes sense, because a value is missing, zero or negative, are left out.
    """
    columns, rows = grid(results, baselines)
    there = [model for model in rows if model in baselines]
    kept, values = [], {model: [] for model in rows}
    for number, column in enumerate(columns):
        best_of = max if column.higher_is_better else min
        goals = [cells[number].value for model, cells in rows.items() if not there or model in there]
        goal = best_of((value for value in goals if value is not None), default=None)
        ratios = {
            model: None if goal is None else ratio(cells[number].value, goal, column.higher_is_better)
            for model, cells in rows.items()
        }
        if any(value is not None for value in ratios.values()):
            kept.append(number)
            for model, value in ratios.items():
                values[model].append(value)
    cells = {model: [row[number] for number in kept] for model, row in rows.items()}
    return Relative([columns[number] for number in kept], values, cells, bool(there))


def teacher_name(reference: str) -> str:
    """The short name of a teacher, as in metrics; any other name is itself."""
    try:
        return short_name(reference)
    except ConfigError:  # a name in results of other tools need not be a reference of ours
        return reference


def ratio(value: float | None, goal: float, higher_is_better: bool) -> float | None:
    """In per cent, above 100 when `value` is better than `goal`; None where either is not positive."""
    if value is None or not math.isfinite(value) or min(value, goal) <= 0:
        return None
    return 100 * (value / goal if higher_is_better else goal / value)


def _is_teacher(reference: str) -> bool:
    base = reference.partition("?")[0]
    scheme, colon, _ = base.partition(":")
    return base in TEACHERS or (bool(colon) and scheme in SCHEMES)
