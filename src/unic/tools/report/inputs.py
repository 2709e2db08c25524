"""What a report is made of: run folders, files of results, diagnoses and pictures, read without changing anything."""

import logging
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from unic.core.dataclass_json import read_json
from unic.core.errors import ConfigError
from unic.core.files import parse_lines
from unic.core.results import StoredResult, damaged_lines, latest, read_results
from unic.models.config import ENCODER_FILE
from unic.tools.report.curve_data import in_order

log = logging.getLogger(__name__)


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
    config: dict[str, Any] | None = None
    environment: dict[str, Any] | None = None
    metrics: Sequence[Mapping[str, Any]] = field(default_factory=list)
    alarms: list[dict[str, Any]] = field(default_factory=list)
    doctor: dict[str, Any] | None = None
    pictures: list[ReportPicture] = field(default_factory=list)
    is_finished: bool = False

    @property
    def teachers(self) -> list[str]:
        """References of the teachers, as the recipe names them."""
        named = (self.config or {}).get("teachers")
        return [str(teacher) for teacher in named] if isinstance(named, list) else []


@dataclass
class ReportInputs:
    """What the paths hold.

    results: every model has a name of its own, and of a number measured twice only the later is there.
    doctors: by where they were read, the content of files doctor.json outside of runs.
    notes: sentences about what was passed over.
    """

    runs: list[Run] = field(default_factory=list)
    results: list[StoredResult] = field(default_factory=list)
    doctors: list[tuple[str, dict[str, Any]]] = field(default_factory=list)
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
    inputs, places = ReportInputs(), []
    for path in dict.fromkeys(paths):
        if not path.exists():
            raise FileNotFoundError(
                f"{path}: no such file or folder; wanted a run folder or a file of results"
            )
        read = _read_folder if path.is_dir() else _read_file
        places += read(path, inputs)
    for run, name in zip(inputs.runs, _names([run.folder for run in inputs.runs]), strict=True):
        run.name = name
    inputs.results = latest(_with_distinct_names(places, inputs))
    if not (inputs.runs or inputs.results or inputs.doctors or inputs.pictures):
        raise ConfigError(f"nothing to report on: no result in {', '.join(map(str, paths))}")
    return inputs


# A folder or file, and the results in it.
Place = tuple[Path, list[StoredResult]]


def _read_folder(folder: Path, inputs: ReportInputs) -> list[Place]:
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


def _read_file(path: Path, inputs: ReportInputs) -> list[Place]:
    if path.suffix == ".jsonl":
        results = _results(path, inputs)
        if not results:
            inputs.note(f"{path} holds no result")
        return [(path, results)]
    if path.suffix == ".json" and (doctor := _doctor(path, inputs)):
        inputs.doctors.append((str(path), doctor))
        return []
    raise ConfigError(f"{path} is neither a run folder, nor a file of results (.jsonl), nor a doctor.json")


def _json(path: Path, inputs: ReportInputs) -> dict[str, Any] | None:
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


def _doctor(path: Path, inputs: ReportInputs) -> dict[str, Any] | None:
    content = _json(path, inputs)
    return content if content and isinstance(content.get("teachers"), list) else None


def _pictures(folder: Path, inputs: ReportInputs) -> list[ReportPicture]:
    """Those that pictures.json names, in the folder itself or in `pictures` below it."""
    pictures = []
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
                pictures.append(ReportPicture(place / name, title, caption))
            else:
                inputs.note(f"{listed}: the picture {name or entry!r} is not there")
    return pictures


def _lines(path: Path, inputs: ReportInputs) -> list[dict[str, Any]]:
    if not path.is_file():
        return []
    records, damaged = parse_lines(path, last_needs_end=False)
    if damaged:
        inputs.note(damaged_lines(path, damaged))
    return records


def _results(path: Path, inputs: ReportInputs) -> list[StoredResult]:
    results, remarks = read_results(path)
    for remark in remarks:
        inputs.note(remark)
    if count := sum(not math.isfinite(result.value) for result in results):
        inputs.note(f"{path}: {count} of {len(results)} values are not finite numbers and shown as a dash")
    return results


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


def _with_distinct_names(places: Sequence[Place], inputs: ReportInputs) -> list[StoredResult]:
    """All results; a name that is another network in another place is followed by that place.

    Two runs may both have called their student "student"; the weights say that these are two.
    """
    weights: dict[str, dict[Path, str]] = {}
    for place, results in places:
        for result in results:
            # What was measured last in a place is what the name stands for there.
            weights.setdefault(result.model, {})[place] = result.model_hash
    folders = [place for place, _ in places]
    name_of = dict(zip(folders, _names(folders), strict=True))
    runs = {run.folder: run.name for run in inputs.runs}
    named = []
    for place, results in places:
        for result in results:
            is_shared = len(set(weights[result.model].values())) > 1
            model = (
                _in_place(result.model, place, runs.get(place), name_of[place]) if is_shared else result.model
            )
            named.append(replace(result, model=model, reference=result.reference or result.model))
    return named


def _in_place(model: str, place: Path, run: str | None, name: str) -> str:
    """ "a/student untrained" for "student untrained" of the run a/student; "dino (first.jsonl)" otherwise."""
    own = place.resolve().name
    if run and (model == own or model.startswith(f"{own} ")):
        return run + model.removeprefix(own)
    return f"{model} ({run or name})"
