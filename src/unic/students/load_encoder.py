"""Encoders by any name a person would use: a teacher, a URI, a run folder, or the file of a student."""

import dataclasses
from functools import partial
from pathlib import Path

from unic.core.dataclass_json import from_dict
from unic.core.errors import ConfigError
from unic.models.config import ENCODER_FILE, StudentConfig
from unic.models.encoder import ImageEncoder
from unic.models.student import build_encoder
from unic.models.timm_encoder import TimmEncoder
from unic.students.foreign_formats import read_published
from unic.students.loaded_student import LoadedStudent
from unic.students.read_run import read_config, read_run
from unic.teachers import TEACHERS, parse_reference
from unic.teachers.load import load_teacher


def load(reference: str | Path, head: str | None = None) -> ImageEncoder:
    """An encoder in eval mode, ready to be called on uint8 images.

    reference: the folder of a run, the file of a student (encoder.safetensors, unic.pth), a teacher's name, or a URI
      such as timm:vit_small_patch16_224.dino?image_size=336.
    head: a teacher the student learned from; the encoder then gives features in that teacher's space and scale.
    """
    path = Path(reference).expanduser()
    if path.exists():
        student = read_student(path)
        if head is not None:
            spaces = {student.teachers[head]: lambda encoder: encoder} if head in student.teachers else {}
            return student.head(head).replace(spaces=spaces)
        return student.encoder.replace(
            spaces={
                student.teachers[name]: partial(_head, student, name)
                for name in student.standardizers
                if name in student.teachers
            }
        )
    if isinstance(reference, Path) or ("/" in str(reference) and ":" not in str(reference)):
        raise FileNotFoundError(f"{reference}: no such run folder or file")
    if head is not None:
        raise ConfigError(f"{reference} is no student: only a run folder or a student's file has heads")
    return load_teacher(str(reference))


def _head(student: LoadedStudent, teacher: str, encoder: TimmEncoder) -> ImageEncoder:
    """The head around this encoder, which may have been moved or renamed since the student was read."""
    return dataclasses.replace(student, encoder=encoder).head(teacher)


def read_student(path: Path) -> LoadedStudent:
    """A student from the folder of its run, or from a file: the one way in for students of every format.

    Raises FileNotFoundError, ConfigError for a folder that is no run, WeightsError for what is damaged or no student.
    """
    if not path.exists():
        raise FileNotFoundError(f"{path}: no such run folder or file")
    if path.is_dir() and not (path / "config.json").exists() and (path / ENCODER_FILE).is_file():
        path /= ENCODER_FILE  # an export
    return read_run(path) if path.is_dir() else read_published(path)


def check(reference: str) -> None:
    """Raises ConfigError or FileNotFoundError for a reference that cannot be loaded, without loading it."""
    path = Path(reference).expanduser()
    if path.is_dir():
        read_config(path)
    elif not path.is_file():
        base, _ = parse_reference(reference)
        if ":" not in base and "/" not in base:
            TEACHERS[base]


def load_untrained(folder: Path) -> TimmEncoder:
    """The student of a run as it was initialised: what any result has to beat."""
    config = read_config(folder)
    student = from_dict(StudentConfig, config["student"], "student.")
    encoder = build_encoder(student, seed=config["seed"], name=f"{folder.resolve().name} untrained")
    return encoder.eval().requires_grad_(False)
