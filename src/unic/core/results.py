"""Results: one number of an evaluation, with all that is needed to compare it; and the lines of results.jsonl."""

import dataclasses
import json
import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeGuard, TypeVar

from unic.core.dataclass_json import from_dict
from unic.core.files import parse_lines


@dataclass(frozen=True, kw_only=True)
class Result:
    """One number, with all that is needed to compare it.

    protocol: version of the evaluation ("knn-1"), followed by every setting that is not the protocol's own.
      Only numbers of the same protocol and data hash are comparable.
    model_hash: of weights, preprocessing, and where tokens are read.
    data_hash: of the split: paths, sizes and labels of its images; the same on every machine.
    seed: of what was drawn at random, where that was one seed.
    seconds: wall-clock time of the evaluation this number is from, features included.
    """

    model: str
    dataset: str
    evaluation: str
    metric: str
    value: float
    unit: str = "%"
    higher_is_better: bool = True
    protocol: str
    model_hash: str
    data_hash: str
    seed: int | None = None
    seconds: float = 0.0

    def to_json(self) -> str:
        """One line, without its end."""
        return json.dumps(dataclasses.asdict(self), allow_nan=False)

    @classmethod
    def from_json(cls, line: str) -> "Result":
        return from_dict(cls, json.loads(line), "result.")


@dataclass(frozen=True, kw_only=True)
class StoredResult(Result):
    """A line of results.jsonl: a result, and where it is from. Empty texts: not recorded.

    reference: what was evaluated under the name of the model: a teacher, a URI or a run folder.
    root: folder of the data set.
    unic: version that measured it.
    time: when it was written, ISO 8601 with the offset from UTC.
    other: fields that this version does not know.
    """

    evaluation: str = ""
    protocol: str = ""
    model_hash: str = ""
    data_hash: str = ""
    reference: str = ""
    root: str = ""
    unic: str = ""
    time: str = ""
    other: Mapping[str, Any] = field(default_factory=dict)

    def to_record(self) -> dict[str, Any]:
        """The fields as they stand in results.jsonl."""
        record = dict(vars(self))
        return record | record.pop("other")

    @classmethod
    def from_record(cls, record: Mapping[str, Any]) -> "StoredResult | None":
        """Reads what any tool or version has written; None where the record does not name model, data set and metric.

        A field that is missing, null, or not of its type takes its default. A value that is no number is NaN.
        """
        if not all(isinstance(record.get(name), str) for name in ("model", "dataset", "metric")):
            return None
        known = {name: record[name] for name in _TYPES if record.get(name) is not None}
        texts = {name: str(value) for name, value in known.items() if _TYPES[name] is str}
        value, seed, seconds = record.get("value"), known.get("seed"), known.get("seconds")
        return cls(
            **texts,
            value=float(value) if _is_number(value) else math.nan,
            higher_is_better=bool(known.get("higher_is_better", True)),
            seed=seed if _is_number(seed) and isinstance(seed, int) else None,
            seconds=float(seconds) if _is_number(seconds) else 0.0,
            other={name: item for name, item in record.items() if name not in _TYPES and item is not None},
        )


_TYPES = {each.name: each.type for each in dataclasses.fields(StoredResult) if each.name != "other"}

R = TypeVar("R", bound=Result)


def latest(results: Iterable[R]) -> list[R]:
    """One result for each number: of an evaluation that was repeated, the last."""
    by_number = {
        (r.model, r.model_hash, r.dataset, r.data_hash, r.evaluation, r.metric, r.protocol): r
        for r in results
    }
    return list(by_number.values())


def read_results(path: Path) -> tuple[list[StoredResult], list[str]]:
    """All results in a file of JSON lines; and sentences about the lines that are left out."""
    records, damaged = parse_lines(path, last_needs_end=False)
    results = [result for result in map(StoredResult.from_record, records) if result is not None]
    remarks = [damaged_lines(path, damaged)] if damaged else []
    if left_out := len(records) - len(results):
        remarks.append(f"{path}: {left_out} of {len(records)} records are no results and are left out")
    return results, remarks


def damaged_lines(path: Path, numbers: list[int]) -> str:
    """A sentence that names the first five of them."""
    named = ", ".join(map(str, numbers[:5])) + (", ..." if len(numbers) > 5 else "")
    return f"{path}: a damaged or unfinished line is left out: {named}"


def _is_number(value: Any) -> TypeGuard[int | float]:
    return isinstance(value, int | float) and not isinstance(value, bool)
