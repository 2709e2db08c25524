"""What the sections of the page say, as values that sections.html draws. Every text is text, never markup."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from unic.core.results import StoredResult
from unic.tools.report.comparison import Comparison
from unic.tools.report.inputs import Run
from unic.tools.report.table_data import ValueTable, flat, is_finite, split_by_difference, table_of, text_of

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


@dataclass(frozen=True, kw_only=True)
class DoctorSection:
    """A doctor.json. warnings: pairs of their kind and message. tables: pairs of their title and the table."""

    facts: str
    warnings: Sequence[tuple[str, str]]
    tables: Sequence[tuple[str, ValueTable]]


@dataclass(frozen=True, kw_only=True)
class Origin:
    """facts: of the environment, the same in all runs. differences, provenance: where there are any."""

    num_runs: int
    facts: Mapping[str, str]
    differences: ValueTable | None
    provenance: ValueTable | None
    num_results: int


def lead(comparison: Comparison) -> list[tuple[str, str, str]]:
    """What the numbers come to, for each of the best students: its name, "101.2 %", of what that is.

    Nothing without a baseline.
    """
    relative = comparison.relative()
    goal = "the best teacher" if len(relative.baselines) != 1 else relative.baselines[0]
    sentences = []
    for model in relative.ranked_students()[:3] if relative.baselines else []:
        mean, percents = relative.mean_percent(model), relative.percents(model)
        if mean is None:
            continue
        column = relative.columns[0]
        where = f"on {column.dataset} ({column.evaluation} {column.metric})."
        if len(percents) > 1:
            ahead = sum(percent is not None and percent > 100 for percent in percents)
            where = f"in the mean over {len(percents)} evaluations; it is ahead in {ahead or 'none'}."
        sentences.append((model, f"{mean:.1f} %", f"of {goal} {where}"))
    return sentences


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


def table_of_runs(runs: Sequence[Run]) -> ValueTable:
    headings = {
        "step": "step", "loss": "loss", "val/loss": "validation loss", "fidelity/knn": "k-NN (%)",
        "images_per_second": "images/s",
    }  # fmt: skip
    measured = [(heading, [_last(run, key) for run in runs]) for key, heading in headings.items()]
    return ValueTable(
        corner="run",
        rows=[run.name for run in runs],
        columns=[
            ("state", ["finished" if run.is_finished else "not finished" for run in runs]),
            *(column for column in measured if any(value is not None for value in column[1])),
            ("alarms", [len(run.alarms) for run in runs]),
        ],
        descending=("step", "k-NN (%)", "images/s", "alarms"),
        thousands=True,
    )


def _last(run: Run, key: str) -> float | int | None:
    """The newest finite value."""
    values = (record.get(key) for record in reversed(run.metrics))
    return next((v for v in values if isinstance(v, int | float) and math.isfinite(v)), None)


def comparison_of_recipes(runs: Sequence[Run]) -> ValueTable | None:
    """A row for each run, a column for each field in which not all are the same; None where all are the same."""
    recipes = {run.name: run.config for run in runs if run.config is not None}
    shared, differing = split_by_difference(list(recipes.values()))
    if not differing:
        return None
    note = f"{len(differing)} of {len(differing) + len(shared)} fields differ."
    return ValueTable(corner="run", rows=list(recipes), columns=list(differing.items()), note=note)


def alarm(record: Mapping[str, Any]) -> tuple[str, str]:
    """What and where it is, and its message; of a line of alarms.jsonl."""
    step, kind = record.get("step"), record.get("alarm") or "alarm"
    where = f"step {step:,}" if isinstance(step, int) else ""
    fields = ", ".join(f"{name} {text_of(value)}" for name, value in record.items())
    return f"{kind} {where}".strip(), str(record.get("message") or fields)


def diagnosis(doctor: Mapping[str, Any]) -> DoctorSection:
    """doctor.json: warnings, teachers, and pairs of them."""
    tables = []
    for key, title in (("teachers", "Teachers"), ("pairs", "Pairs of teachers")):
        if records := _objects(doctor.get(key)):
            tables.append((title, table_of([_in_per_cent(record) for record in records], _DOCTOR)))
    return DoctorSection(
        facts=", ".join(f"{name} {text_of(doctor[name])}" for name in ("data", "images") if name in doctor),
        warnings=[
            (text_of(warning.get("kind")), text_of(warning.get("message")))
            for warning in _objects(doctor.get("warnings"))
        ],
        tables=tables,
    )


def _objects(value: Any) -> list[dict[str, Any]]:
    return [item for item in value if isinstance(item, dict)] if isinstance(value, list) else []


def _in_per_cent(record: Mapping[str, Any]) -> dict[str, Any]:
    """Shares in per cent."""
    return {
        name: 100 * value if name.endswith("_share") and is_finite(value) else value
        for name, value in record.items()
    }


def origin(runs: Sequence[Run], results: Sequence[StoredResult]) -> Origin | None:
    """What is the same in the environment of all runs, what is not, and where the numbers are from."""
    with_environment = [run for run in runs if run.environment]
    shared, differing = split_by_difference([_readable(run.environment or {}) for run in with_environment])
    names = [run.name for run in with_environment]
    differences = ValueTable(corner="run", rows=names, columns=list(differing.items())) if differing else None
    provenance, num_results = _provenance(results)
    if not (shared or differing or provenance):
        return None
    return Origin(
        num_runs=len(with_environment),
        facts={name: text_of(value) for name, value in _join_versions(shared).items()},
        differences=differences,
        provenance=provenance,
        num_results=num_results,
    )


def _readable(environment: Mapping[str, Any]) -> dict[str, Any]:
    """The command as a line, as it was typed."""
    command = environment.get("command")
    line = " ".join(map(str, command)) if isinstance(command, list) else command
    return {**environment, **({"command": line} if command else {})}


def _join_versions(facts: Mapping[str, Any]) -> dict[str, Any]:
    """Versions of packages in one line."""
    versions = {
        name.removeprefix("packages."): v for name, v in facts.items() if name.startswith("packages.")
    }
    rest = {name: value for name, value in facts.items() if not name.startswith("packages.")}
    line = ", ".join(f"{name} {text_of(version)}" for name, version in versions.items())
    return rest | ({"packages": line} if line else {})


def _provenance(results: Sequence[StoredResult]) -> tuple[ValueTable | None, int]:
    """Which weights and data each number is from, once for each evaluation; and how many there are."""
    fields = ("model", "dataset", "evaluation", "protocol", "model_hash", "data_hash")
    by_evaluation = {tuple(getattr(result, name) for name in fields): result for result in results}
    if not by_evaluation:
        return None, 0
    records = [
        {name: _recorded(result, name) for name in (*fields, "seed", "unic", "time", "seconds")}
        for result in by_evaluation.values()
    ]
    empty = {name for name in records[0] if all(record[name] is None for record in records)}
    shown = [{name: v for name, v in record.items() if name not in empty} for record in records[:MAX_ROWS]]
    left_out = len(records) - len(shown)
    note = f"{left_out} more are in results.csv." if left_out else ""
    names = {"model": "encoder", "model_hash": "weights", "data_hash": "data"}
    return table_of(shown, names, note), len(records)


def _recorded(result: StoredResult, name: str) -> str | int | float | None:
    """A field for people; None for what was not recorded."""
    value = getattr(result, name)
    if name.endswith("_hash"):
        value = value[:12]
    return None if value == "" or (name == "seconds" and value == 0) else value
