"""Students as other libraries read them: written, read back by that library, and compared before anything is kept.

A format is one file in this folder (or a `--plugin`) that adds a `Format` to `EXPORTS`; copy to_timm.py.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from unic.core.dataclass_json import to_dict
from unic.core.errors import ConfigError
from unic.core.files import write_folder, write_json
from unic.core.keyed_random import seeded_torch
from unic.core.registry import Registry
from unic.students.export.model_card import model_card
from unic.students.export.parity import Parity, Read, compare, read_photos
from unic.students.loaded_student import LoadedStudent


@dataclass(frozen=True, kw_only=True)
class Format:
    """One form of files: how it is written, and how the library it is for reads it."""

    what: str
    """One line for people."""
    library: str
    """The Python package that reads it."""
    write: Callable[[LoadedStudent, Path, str | None], None]
    """Fills a folder; the last argument is the teacher whose head goes with it."""
    reload: Callable[[Path], Read]
    """Reads the folder with that library and none of our code."""
    usage: Callable[[LoadedStudent, str | None], str]
    """Python code for the model card, to be run inside the folder."""
    notes: Callable[[LoadedStudent, str | None], str] = lambda student, head: ""
    """What else the reader of the model card must know."""
    card_library: str = ""
    """What model hubs call that library, where that is another name."""
    heads: Literal["none", "beside", "instead"] = "none"
    """Where a head goes: nowhere, into a file beside the encoder, or the outputs are the head's."""


EXPORTS: Registry[Format] = Registry("export format", "unic.students.export")


def export(
    student: LoadedStudent,
    to: str,
    out: Path,
    *,
    head: str | None = None,
    images: Sequence[Path] = (),
    tolerance: float = 1e-4,
) -> Parity:
    """Writes the folder `out` with the student in the form `to`, a model card and parity.json.

    out: must not exist, or be an empty folder.
    head: a teacher the student learned from.
    images: photographs to compare on, besides two that come with scikit-learn.
    tolerance: largest absolute difference of a feature between the exported encoder and ours, in float32.
    Raises WeightsError, with nothing written, when the difference is larger or a feature is not finite.
    """
    form = EXPORTS[to]
    encoder = student.encoder
    if head is not None:
        if form.heads == "none":
            can = ", ".join(name for name in EXPORTS if EXPORTS[name].heads != "none")
            raise ConfigError(f"--to {to} cannot hold the head of {head}; formats that can: {can}")
        with_head = student.head(head)
        encoder = with_head if form.heads == "instead" else encoder
    if not tolerance > 0:
        raise ConfigError(f"the tolerance must be above 0, got {tolerance}")
    if out.exists() and not (out.is_dir() and not any(out.iterdir())):
        raise ConfigError(f"{out} exists already; give the export an empty or a new folder")
    photos = read_photos(images, encoder.image_size)

    def write(folder: Path) -> Parity:
        form.write(student, folder, head)
        parity = compare(encoder, form.reload(folder), photos, library=form.library, tolerance=tolerance)
        write_json(folder / "parity.json", to_dict(parity))
        card = model_card(
            student,
            head=head,
            what=form.what,
            library=form.card_library or form.library,
            usage=form.usage(student, head),
            notes=form.notes(student, head),
            parity=parity,
        )
        (folder / "README.md").write_text(card, encoding="utf-8")
        for path in folder.iterdir():
            path.chmod(0o644)  # safetensors writes files that nobody else can read
        return parity

    found: list[Parity] = []
    with seeded_torch(0, "exported weights"):  # libraries initialise a model before they load its weights
        write_folder(out, lambda folder: found.append(write(folder)))
    return found[0]
