"""Write a student for other libraries: unic export RUN --to timm | hf | hub | onnx | dinov2 | safetensors"""

from dataclasses import dataclass
from pathlib import Path

import tyro

from unic.cli.common import parse


@dataclass(frozen=True, kw_only=True)
class Options:
    run: tyro.conf.Positional[Path]
    """Run folder, or the file of a student."""
    to: str
    """timm, hf, hub, onnx, dinov2 or safetensors."""
    out: Path | None = None
    """Folder to write. None: exports/ and the run's name with the format."""
    head: str | None = None
    """A teacher of the student: export its head alone of all (safetensors), or the student in its space (onnx)."""
    images: tuple[Path, ...] = ()
    """More photographs on which the exported student must agree with ours."""
    tolerance: float = 1e-4
    """Largest difference of a feature that still counts as agreement."""


def run(words: list[str]) -> int:
    options = parse(Options, words, "export")

    from unic.students.export import EXPORTS, export
    from unic.students.load_encoder import read_student

    EXPORTS[options.to]  # an unknown name is an error before anything is read
    if not options.run.exists():
        raise FileNotFoundError(
            f"{options.run}: no such run folder or file of a student (teachers cannot be exported)"
        )
    student = read_student(options.run)
    name = "_".join(filter(None, (student.name, options.to, options.head)))
    out = options.out or Path("exports") / name
    parity = export(
        student, options.to, out, head=options.head, images=options.images, tolerance=options.tolerance
    )
    print(f"{out}: as {parity.library} loads it, tokens differ from ours by at most {parity.worst:.1e}")
    return 0
