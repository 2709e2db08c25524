"""Draw what encoders see: unic visualize ENCODER... --images FILE_OR_FOLDER... --kinds pca similarity attention"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import tyro

from unic.cli.common import Common, parse, process_group
from unic.core.errors import ConfigError
from unic.tools.visualize.options import VisualizeOptions

if TYPE_CHECKING:
    from unic.tools.visualize.extract import NamedEncoder


@dataclass(frozen=True, kw_only=True)
class Options(VisualizeOptions, Common):
    encoders: tyro.conf.Positional[tuple[str, ...]]
    """Teachers by name, URIs (timm:..., file:...), run folders; RUN@TEACHER for a student's head."""
    images: tuple[Path, ...] = ()
    """Image files, and folders of images; two photographs of scikit-learn when none is named."""
    max_images: int = 4
    """At most so many, at equal distances; a row each."""
    out: Path | None = None
    """Folder for the pictures; RUN/pictures of the first run named, or else ./pictures, when left out."""


class DrawnEncoder(NamedTuple):
    """An encoder to draw: what is loaded, the head if one is asked for, and the name above its pictures."""

    base: str
    head: str | None
    name: str


def run(words: list[str]) -> int:
    options = parse(Options, words, "visualize")

    from unic.core import distributed
    from unic.tools.visualize.read_photographs import read_photographs
    from unic.tools.visualize.visualize import visualize

    if not options.encoders:
        raise ConfigError("no encoder named; name a teacher, a URI, a run folder, or RUN@TEACHER for a head")
    options.check()
    columns = _columns(options.encoders)
    out = options.out or _default_folder(options.encoders)
    with process_group(options.device) as device:
        if not distributed.is_main():
            return 0
        pictures = read_photographs(options.images, options.max_images)
        for path in visualize(_load(columns), pictures, options, out, device=device):
            print(path)
    return 0


def _columns(references: Sequence[str]) -> list[DrawnEncoder]:
    """One for each reference, once. Raises for names that do not exist, before anything is loaded."""
    from unic.evals.evaluate_encoders import labels
    from unic.students.load_encoder import check

    parts = {reference: _take_head(reference) for reference in references}
    for base, _ in parts.values():
        check(base)
    names = labels([base for base, _ in parts.values()])
    files = {base: Path(base).expanduser() for base in names}
    names |= {
        base: f"{file.absolute().parent.name}/{file.name}" for base, file in files.items() if file.is_file()
    }
    return [
        DrawnEncoder(base, head, names[base] if head is None else f"{names[base]}@{head}")
        for base, head in parts.values()
    ]


def _take_head(reference: str) -> tuple[str, str | None]:
    """RUN@TEACHER in two, where there is a run (or a student's file) of that name."""
    base, at, head = reference.rpartition("@")
    if at and not Path(reference).expanduser().exists() and Path(base).expanduser().exists():
        return base, head
    return reference, None


def _load(columns: Sequence[DrawnEncoder]) -> "Iterator[NamedEncoder]":
    from unic.students.load_encoder import load
    from unic.teachers import short_name
    from unic.tools.visualize.extract import NamedEncoder

    for base, head, name in columns:
        is_student = Path(base).expanduser().exists()
        yield NamedEncoder(load(base, head), name, head if is_student else short_name(base))


def _default_folder(references: Sequence[str]) -> Path:
    """Where a report looks for the pictures of a run; else a folder of their own."""
    runs = [Path(_take_head(reference)[0]).expanduser() for reference in references]
    run = next((run for run in runs if (run / "config.json").is_file()), Path())
    return run / "pictures"
