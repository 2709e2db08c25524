"""teachers, import, export: encoders from elsewhere, and students to elsewhere."""

import logging
import shlex
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from unic.cli.options import Common, parse, process_group
from unic.core.errors import ConfigError, UnicError
from unic.core.plugins import unknown

if TYPE_CHECKING:
    from rich.console import Console
    from rich.table import Table

log = logging.getLogger("unic")


def teachers(words: list[str]) -> int:
    """List, fetch and check teachers: unic teachers list | fetch NAME... | check NAME..."""
    actions = {"list": _list, "fetch": _fetch, "check": _check}
    action, *rest = words or ["list"]
    if action in ("-h", "--help"):
        print(teachers.__doc__)
        return 0
    if action not in actions:
        raise ConfigError(unknown("command of unic teachers", action, actions))
    return actions[action](rest)


def import_(words: list[str]) -> int:
    """Bring a published student into a run folder: unic import unic.pth --out RUN"""
    from unic.students.import_student import import_student

    options = parse(_import_options(), words, "import")
    out = options.out or Path("runs") / options.file.stem
    student = import_student(options.file, out)
    heads = ", ".join(student.standardizers) or "none"
    size, width = student.encoder.image_size, student.encoder.dim
    print(f"{out}: encoder of {size} px, width {width}; heads: {heads}")
    print(f"use it: unic evaluate {shlex.quote(str(out))} --data-root DIR")
    return 0


def export(words: list[str]) -> int:
    """Write a student for other libraries: unic export RUN --to timm | hf | hub | onnx | dinov2 | safetensors"""
    from unic.students.export import EXPORTS
    from unic.students.export import export as write
    from unic.students.load import read_student

    options = parse(_export_options(), words, "export")
    EXPORTS[options.to]  # an unknown name is found before anything is read
    if not options.run.exists():
        raise FileNotFoundError(
            f"{options.run}: no such run folder or file of a student (teachers cannot be exported)"
        )
    student = read_student(options.run)
    name = "_".join(filter(None, (student.name, options.to, options.head)))
    out = options.out or Path("exports") / name
    parity = write(
        student, options.to, out, head=options.head, images=options.images, tolerance=options.tolerance
    )
    print(f"{out}: as {parity.library} loads it, tokens differ from ours by at most {parity.worst:.1e}")
    return 0


def _list(words: list[str]) -> int:
    from unic.teachers import SCHEMES, TEACHERS

    if words:
        raise ConfigError(f"unic teachers list takes no more words, got {' '.join(words)!r}")
    table = _table("name", "parameters", "fp32", "here", "pixels", "licence", "source")
    for name in TEACHERS:
        spec = TEACHERS[name]
        millions = _millions(name)
        size = f"{4 * millions:.0f} MB"  # 4 bytes a parameter
        table.add_row(
            name, f"{millions:.0f} M", size, _here(name), str(spec.image_size), spec.licence,
            spec.source.removeprefix("https://"),
        )  # fmt: skip
    _print(table)
    kinds = _table("also, by URI", "what", "options after ?")
    for name in SCHEMES:
        scheme = SCHEMES[name]
        kinds.add_row(scheme.example, scheme.what, ", ".join(sorted(scheme.options)))
    _print(kinds)
    return 0


def _fetch(words: list[str]) -> int:
    from unic.teachers import TEACHERS, parse_reference
    from unic.teachers.fetch import WeightsFile, fetch

    options = parse(_names_options(), words, "teachers fetch")
    if not options.names:
        raise ConfigError("which teachers? unic teachers fetch NAME...; see `unic teachers list`")
    with process_group("cpu"):
        for name in options.names:
            if ":" in parse_reference(name)[0]:
                raise ConfigError(
                    f"{name}: fetch is for names of `unic teachers list`; URIs are fetched when loaded"
                )
        for name in options.names:
            weights = TEACHERS[parse_reference(name)[0]].weights
            path = fetch(weights, verify=True) if isinstance(weights, WeightsFile) else weights()
            if not path.is_file():
                raise FileNotFoundError(f"{name}: no weights at {path.absolute()}")
            published = isinstance(weights, WeightsFile) and weights.sha256
            print(
                f"{name}: {path}" + ("" if published else "  (no sha256 is published; this one is recorded)")
            )
    return 0


def _check(words: list[str]) -> int:
    from unic.tools.doctor.smoke_test import check_teacher

    options = parse(_check_options(), words, "teachers check")
    if options.data is not None:
        return _diagnose(options)
    options.refuse_options_of_data()
    table = _table(
        "name", "parameters", "pixels", "grid", "CLS", "patches", "|CLS|", "|patch|", "fingerprint"
    )
    with process_group(options.device) as device:
        for name in options.names:
            found = check_teacher(name, options.images, device)
            grid = "x".join(map(str, found.grid))
            table.add_row(
                found.name, f"{found.parameters / 1e6:.1f} M", str(found.image_size), grid, *map(str, found.widths),
                f"{found.cls_norm:.1f}", f"{found.patch_norm:.1f}", found.sha256[:12],
            )  # fmt: skip
    _print(table)
    return 0


def _diagnose(options: Any) -> int:
    from unic.tools.doctor.doctor import diagnose, make_folder, write_diagnosis
    from unic.tools.doctor.print_diagnosis import print_diagnosis

    if options.images:
        raise ConfigError("--images and --data are two ways to give images; use one of them")
    if options.out is not None:
        make_folder(options.out)
    with process_group(options.device) as device:
        found = diagnose(
            options.names, options.data, max_images=500 if options.max_images is None else options.max_images,
            device=device,
        )  # fmt: skip
    print_diagnosis(found, _console())
    if options.out is not None:
        print(f"written to {write_diagnosis(found, options.out)}")
    return 0


def _names_options() -> type:
    import tyro

    @dataclass(frozen=True, kw_only=True)
    class Options:
        names: tyro.conf.Positional[tuple[str, ...]]
        """Teachers by name."""

    return Options


def _check_options() -> type:
    import tyro

    @dataclass(frozen=True, kw_only=True)
    class Options(Common):
        names: tyro.conf.Positional[tuple[str, ...]]
        """Teachers by name or URI."""
        images: tuple[Path, ...] = ()
        """Photographs to look at; without any, two that come with scikit-learn."""
        data: Path | None = None
        """Folder of your images, or a list of them: examine the teachers on these, each alone and in pairs."""
        max_images: int | None = None
        """With --data: look at this many, spread over the folder. None: 500."""
        out: Path | None = None
        """With --data: folder that gets doctor.json. None: nothing is written."""

        def refuse_options_of_data(self) -> None:
            for name in ("max_images", "out"):
                if getattr(self, name) is not None:
                    raise ConfigError(
                        f"--{name.replace('_', '-')} has no effect without --data DIR, a folder of images"
                    )

    return Options


def _import_options() -> type:
    import tyro

    @dataclass(frozen=True, kw_only=True)
    class Options:
        file: tyro.conf.Positional[Path]
        """unic.pth, unic_l.pth, a backbone in DINOv2's format, or an encoder.safetensors."""
        out: Path | None = None
        """The run folder to write. None: runs/ and the file's name."""

    return Options


def _export_options() -> type:
    import tyro

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

    return Options


def _table(*columns: str) -> "Table":
    from rich.table import Table

    table = Table(box=None, pad_edge=False)
    for column in columns:
        table.add_column(column, no_wrap=column in ("name", "also, by URI"))
    return table


def _print(table: "Table") -> None:
    _console().print(table)


def _console() -> "Console":
    from rich.console import Console

    return Console(width=None if sys.stdout.isatty() else 160)


def _millions(name: str) -> float:
    from unic.teachers.load import outline_teacher

    encoder = outline_teacher(name)
    assert encoder is not None, "named teachers have outlines"
    return sum(parameter.numel() for parameter in encoder.parameters()) / 1e6


def _here(name: str) -> str:
    from unic.teachers import TEACHERS, missing_weights
    from unic.teachers.fetch import WeightsFile

    if isinstance(TEACHERS[name].weights, WeightsFile):
        return "no" if missing_weights(name) else "yes"
    try:
        return "yes" if TEACHERS[name].weights().is_file() else "no"
    except (ImportError, OSError, UnicError):
        return "no"
