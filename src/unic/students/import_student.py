"""A student's file as a run folder of unic, so that everything that takes a run takes it.

OUT/ config.json  encoder.safetensors  imported.json  checkpoints/step-00000000/
"""

import shutil
import uuid
from pathlib import Path
from typing import Any

from torch import nn

from unic.core.dataclass_json import to_dict
from unic.core.errors import ConfigError
from unic.core.files import TEMPORARY, file_sha256, write_folder, write_json
from unic.models.config import ENCODER_FILE
from unic.models.student import write_encoder
from unic.models.weights import write_weights
from unic.students.foreign_formats import read_published
from unic.students.loaded_student import LoadedStudent
from unic.students.read_run import read_run

IMPORTED_FILE = "imported.json"


def import_student(path: Path, out: Path) -> LoadedStudent:
    """Writes the student in a file as the run folder `out`, and gives it as it is read from there.

    Safe against a kill at any instant: `out` either does not exist (or is still empty) or is complete.
    Raises ConfigError when `out` holds anything, and as `read_published`.
    """
    if path.is_dir():
        raise ConfigError(f"{path} is a folder; import the file of a student, such as unic.pth")
    folder = out.resolve()
    _check_empty(out)
    student = read_published(path)
    origin = {"file": path.name, "sha256": file_sha256(path), **student.facts}
    temporary = folder.parent / f"{TEMPORARY}{uuid.uuid4().hex}"
    try:
        try:
            temporary.mkdir(parents=True)
        except OSError as error:
            raise ConfigError(
                f"{out} cannot be written to ({error.strerror}); give another folder"
            ) from error
        _write(temporary, student, origin)
        temporary.rename(folder)  # takes the place of an empty folder, and of nothing else
    except BaseException:
        shutil.rmtree(temporary, ignore_errors=True)
        raise
    return read_run(out)


def _check_empty(out: Path) -> None:
    if out.exists() and not out.is_dir():
        raise ConfigError(f"{out} is a file; the output must be a folder")
    names = sorted(entry.name for entry in out.iterdir()) if out.exists() else []
    if names:
        raise ConfigError(f"{out} is not empty ({', '.join(names[:3])}); give a new folder")


def _write(folder: Path, student: LoadedStudent, origin: dict[str, Any]) -> None:
    write_json(folder / "config.json", _config(student))
    write_json(folder / IMPORTED_FILE, origin)
    write_encoder(folder / ENCODER_FILE, student.cfg, student.encoder)
    brief = {key: value for key, value in origin.items() if key != "args"}
    write_folder(
        folder / "checkpoints" / "step-00000000",
        lambda temporary: _write_checkpoint(temporary, student, brief),
    )


def _config(student: LoadedStudent) -> dict[str, Any]:
    config: dict[str, Any] = {"teachers": list(student.teachers.values()), "student": to_dict(student.cfg)}
    if student.ladder is not None:
        config["ladder"] = to_dict(student.ladder_cfg)
        first = next(iter(student.standardizers.values()))
        config["statistics"] = to_dict(first.cfg)
    return {**config, "seed": 0}


def _write_checkpoint(folder: Path, student: LoadedStudent, origin: dict[str, Any]) -> None:
    """What a run writes, less the optimizer's state: there is nothing to go on with."""
    ladder = student.ladder.state_dict() if student.ladder is not None else {}
    tensors = {f"encoder.{key}": tensor for key, tensor in student.encoder.state_dict().items()}
    tensors |= {f"ladder.{key}": tensor for key, tensor in ladder.items()}
    write_weights(folder / "model.safetensors", tensors)
    statistics = nn.ModuleDict(dict(student.standardizers)).state_dict()
    write_weights(folder / "statistics.safetensors", statistics)
    write_json(folder / "meta.json", {"step": 0, "teachers": {}, "imported": origin})
