"""What a report is made of: run folders, files of results, diagnoses and pictures, read without changing anything."""

import json
import logging
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from unic.core.config import read_json
from unic.core.errors import ConfigError
from unic.models.student import ENCODER_FILE
from unic.tools.report.curves import in_order

log = logging.getLogger(__name__)

_WORDS = ("evaluation", "protocol", "unit", "model_hash", "data_hash", "reference")

Record = dict[str, Any]


@dataclass(frozen=True)
class ReportPicture:
    path: Path
    title: str
    caption: str


@dataclass
class Run:
    """A run folder. None, and empty lists: it has no such file (yet)."""

    folder: Path
    name: str = ""
    config: Record | None = None
    environment: Record | None = None
    metrics: Sequence[Mapping[str, Any]] = field(default_factory=list)
    alarms: list[Record] = field(default_factory=list)
    doctor: Record | None = None
    pictures: list[ReportPicture] = field(default_factory=list)
    is_finished: bool = False

    @property
    def teachers(self) -> list[str]:
        """References of the teachers, as the recipe names them."""
        named = (self.config or {}).get("teachers")
        return [str(teacher) for teacher in named] if isinstance(named, list) else []


@dataclass
class ReportInputs:
    """results: records in which every model has a name of its own, and `reference` says what it was measured as.

    notes: sentences about what was passed over.
    """

    runs: list[Run] = field(default_factory=list)
    results: list[Record] = field(default_factory=list)
    doctors: list[tuple[str, Record]] = field(default_factory=list)
    pictures: list[ReportPicture] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    def note(self, sentence: str) -> None:
        log.warning("%s", sentence)
        self.notes.append(sentence)


def read_report_inputs(paths: Sequence[Path]) -> ReportInputs:
    """Reads run folders, folders or files of results, doctor.json files and folders of pictures.

    Raises FileNotFoundError for a path that is not there, ConfigError for one that holds nothing of the kind.
    """
    if not paths:
        raise ConfigError(
            "nothing to report on; name run folders or files of results: unic report RUN --out DIR"
        )
    inputs, measured = ReportInputs(), []
    for path in dict.fromkeys(paths):
        if not path.exists():
            raise FileNotFoundError(
                f"{path}: no such file or folder; wanted a run folder or a file of results"
            )
        read = _read_folder if path.is_dir() else _read_file
        measured += read(path, inputs)
    for run, name in zip(inputs.runs, _names([run.folder for run in inputs.runs]), strict=True):
        run.name = name
    inputs.results = _told_apart(measured, inputs)
    if not (inputs.runs or inputs.results or inputs.doctors or inputs.pictures):
        raise ConfigError(f"nothing to report on: no result in {', '.join(map(str, paths))}")
    return inputs


Measured = list[tuple[Path, list[Record]]]


def _read_folder(folder: Path, inputs: ReportInputs) -> Measured:
    is_run = (folder / "config.json").is_file()
    pictures, doctor = _pictures(folder, inputs), _doctor(folder / "doctor.json", inputs)
    results = folder / "results.jsonl"
    if not (is_run or pictures or doctor or results.is_file()):
        raise ConfigError(
            f"{folder} is no run folder (no config.json in it) and has no results.jsonl, doctor.json or pictures.json"
        )
    if is_run:
        run = Run(folder, config=_json(folder / "config.json", inputs), doctor=doctor, pictures=pictures)
        run.environment = _json(folder / "environment.json", inputs)
        run.metrics = in_order(_lines(folder / "metrics.jsonl", inputs))
        run.alarms = _lines(folder / "alarms.jsonl", inputs)
        run.is_finished = (folder / ENCODER_FILE).is_file()
        inputs.runs.append(run)
    else:
        inputs.pictures += pictures
        inputs.doctors += [(str(folder), doctor)] if doctor else []
    return [(folder, _results(results, inputs))] if results.is_file() else []


def _read_file(path: Path, inputs: ReportInputs) -> Measured:
    if path.suffix == ".jsonl":
        results = _results(path, inputs)
        if not results:
            inputs.note(f"{path} holds no result")
        return [(path, results)]
    if path.suffix == ".json" and (doctor := _doctor(path, inputs)):
        inputs.doctors.append((str(path), doctor))
        return []
    raise ConfigError(f"{path} is neither a run folder, nor a file of results (.jsonl), nor a doctor.json")


def _json(path: Path, inputs: ReportInputs) -> Record | None:
    if not path.is_file():
        return None
    try:
        content = read_json(path)
    except ConfigError as error:
        inputs.note(f"passed over: {error}")
        return None
    if isinstance(content, dict):
        return content
    inputs.note(f"passed over: {path} has no named fields")
    return None


def _doctor(path: Path, inputs: ReportInputs) -> Record | None:
    found = _json(path, inputs)
    return found if found and isinstance(found.get("teachers"), list) else None


def _pictures(folder: Path, inputs: ReportInputs) -> list[ReportPicture]:
    """Those that pictures.json names, in the folder itself or in `pictures` below it."""
    found = []
    for place in (folder, folder / "pictures"):
        listed = place / "pictures.json"
        if not listed.is_file():
            continue
        try:
            entries = read_json(listed)
        except ConfigError as error:
            inputs.note(f"passed over: {error}")
            continue
        for entry in entries if isinstance(entries, list) else []:
            # Only the name: a list of pictures cannot reach outside its own folder.
            name = Path(str(entry.get("file", ""))).name if isinstance(entry, dict) else ""
            if name and (place / name).is_file():
                title, caption = str(entry.get("title", name)), str(entry.get("caption", ""))
                found.append(ReportPicture(place / name, title, caption))
            else:
                inputs.note(f"{listed}: the picture {name or entry!r} is not there")
    return found


def _lines(path: Path, inputs: ReportInputs) -> list[Record]:
    """The records of a file of JSON lines; damaged ones, such as a last one that a kill cut short, are left out.

    Unlike a run that takes itself up again, this believes a whole last line without an end: other tools write such.
    """
    records, damaged = [], []
    for number, line in enumerate(path.read_bytes().split(b"\n") if path.is_file() else [], start=1):
        if not line.strip():
            continue
        try:
            record = json.loads(line)
        except ValueError:
            record = None
        if isinstance(record, dict):
            records.append(record)
        else:
            damaged.append(number)
    if damaged:
        inputs.note(f"{path}: a damaged or unfinished line is left out: {_first(damaged)}")
    return records


def _first(numbers: Sequence[int]) -> str:
    return ", ".join(map(str, numbers[:5])) + (", ..." if len(numbers) > 5 else "")


def _results(path: Path, inputs: ReportInputs) -> list[Record]:
    """Records that name a model and what was measured; a value that is no number becomes NaN."""
    records = []
    lines = _lines(path, inputs)
    for record in lines:
        if not all(isinstance(record.get(name), str) for name in ("model", "dataset", "metric")):
            continue
        value = record.get("value")
        if not isinstance(value, int | float) or isinstance(value, bool):
            value = math.nan
        # What names a column is text, whatever another tool has written there.
        words = {n: str(record[n]) for n in _WORDS if record.get(n) is not None}
        rest = {name: item for name, item in record.items() if item is not None and name not in _WORDS}
        records.append(rest | words | {"value": float(value)})
    if len(records) < len(lines):
        left_out = len(lines) - len(records)
        inputs.note(f"{path}: {left_out} of {len(lines)} records are no results and are left out")
    if count := sum(not math.isfinite(record["value"]) for record in records):
        inputs.note(f"{path}: {count} of {len(records)} values are not finite numbers and shown as a dash")
    return records


def _names(places: Sequence[Path]) -> list[str]:
    """The last part of each path, with as many before it as tell it from the others."""
    parts = [place.resolve().parts for place in places]
    names = []
    for own in parts:
        length = next(
            (n for n in range(1, len(own) + 1) if sum(other[-n:] == own[-n:] for other in parts) == 1), 1
        )
        names.append("/".join(own[-length:]))
    return names


def _told_apart(measured: Measured, inputs: ReportInputs) -> list[Record]:
    """All results; a name that is another network in another place is followed by that place.

    Two runs may both have called their student "student"; the weights say that these are two.
    """
    weights: dict[str, dict[Path, str]] = {}
    for place, records in measured:
        for record in records:
            # What was measured last in a place is what the name stands for there.
            weights.setdefault(record["model"], {})[place] = str(record.get("model_hash") or "")
    places = [place for place, _ in measured]
    name_of = dict(zip(places, _names(places), strict=True))
    runs = {run.folder: run.name for run in inputs.runs}
    results = []
    for place, records in measured:
        for record in records:
            model, reference = record["model"], record.get("reference") or record["model"]
            if len(set(weights[model].values())) > 1:
                model = _in_place(model, place, runs.get(place), name_of[place])
            results.append(record | {"model": model, "reference": reference})
    return results


def _in_place(model: str, place: Path, run: str | None, name: str) -> str:
    """ "a/student untrained" for "student untrained" of the run a/student; "dino (first.jsonl)" otherwise."""
    own = place.resolve().name
    if run and (model == own or model.startswith(f"{own} ")):
        return run + model.removeprefix(own)
    return f"{model} ({run or name})"
