"""Bring a published student into a run folder: unic import unic.pth --out RUN"""

import shlex
from dataclasses import dataclass
from pathlib import Path

import tyro

from unic.cli.common import parse


@dataclass(frozen=True, kw_only=True)
class Options:
    file: tyro.conf.Positional[Path]
    """unic.pth, unic_l.pth, a backbone in DINOv2's format, or an encoder.safetensors."""
    out: Path | None = None
    """The run folder to write. None: runs/ and the file's name."""


def run(words: list[str]) -> int:
    options = parse(Options, words, "import")

    from unic.students.import_student import import_student

    out = options.out or Path("runs") / options.file.stem
    student = import_student(options.file, out)
    heads = ", ".join(student.standardizers) or "none"
    size, width = student.encoder.image_size, student.encoder.dim
    print(f"{out}: encoder of {size} px, width {width}; heads: {heads}")
    print(f"use it: unic evaluate {shlex.quote(str(out))} --data-root DIR")
    return 0
