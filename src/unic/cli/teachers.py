"""List, fetch and check teachers: unic teachers list | fetch NAME... | check NAME..."""

from dataclasses import dataclass
from pathlib import Path

import tyro
from rich.table import Table

from unic.cli.common import Common, console, parse, process_group, run_action
from unic.core.errors import ConfigError, UnicError
from unic.teachers import SCHEMES, TEACHERS, TeacherSpec, parse_reference
from unic.teachers.fetch import WeightsFile, fetch


@dataclass(frozen=True, kw_only=True)
class FetchOptions:
    names: tyro.conf.Positional[tuple[str, ...]]
    """Teachers by name."""


@dataclass(frozen=True, kw_only=True)
class CheckOptions(Common):
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


def run(words: list[str]) -> int:
    actions = {"list": _list, "fetch": _fetch, "check": _check}
    return run_action("teachers", actions, words, usage=__doc__ or "")


def _list(words: list[str]) -> int:
    table = _table("name", "parameters", "fp32", "here", "pixels", "licence", "source")
    for name in TEACHERS:
        spec = TEACHERS[name]
        millions = _num_parameters(spec) / 1e6
        size = f"{4 * millions:.0f} MB"  # 4 bytes a parameter
        table.add_row(
            name, f"{millions:.0f} M", size, "yes" if _is_here(spec) else "no", str(spec.image_size), spec.licence,
            spec.source.removeprefix("https://"),
        )  # fmt: skip
    console().print(table)
    kinds = _table("also, by URI", "what", "options after ?")
    for name in SCHEMES:
        scheme = SCHEMES[name]
        kinds.add_row(scheme.example, scheme.what, ", ".join(sorted(scheme.options)))
    console().print(kinds)
    return 0


def _fetch(words: list[str]) -> int:
    options = parse(FetchOptions, words, "teachers fetch")
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
    options = parse(CheckOptions, words, "teachers check")
    if options.data is not None:
        return _examine_on_data(options, options.data)
    for name in ("max_images", "out"):
        if getattr(options, name) is not None:
            raise ConfigError(
                f"--{name.replace('_', '-')} has no effect without --data DIR, a folder of images"
            )
    return _check_on_photographs(options)


def _check_on_photographs(options: CheckOptions) -> int:
    from unic.tools.doctor.check_teacher import check_teacher

    table = _table(
        "name", "parameters", "pixels", "grid", "CLS", "patches", "|CLS|", "|patch|", "content hash"
    )
    with process_group(options.device) as device:
        for name in options.names:
            facts = check_teacher(name, options.images, device)
            grid = "x".join(map(str, facts.grid))
            table.add_row(
                facts.name, f"{facts.parameters / 1e6:.1f} M", str(facts.image_size), grid, *map(str, facts.widths),
                f"{facts.cls_norm:.1f}", f"{facts.patch_norm:.1f}", facts.sha256[:12],
            )  # fmt: skip
    console().print(table)
    return 0


def _examine_on_data(options: CheckOptions, data: Path) -> int:
    from unic.tools.doctor.doctor import diagnose, make_folder, write_diagnosis
    from unic.tools.doctor.print_diagnosis import print_diagnosis

    if options.images:
        raise ConfigError("--images and --data are two ways to give images; use one of them")
    if options.out is not None:
        make_folder(options.out)
    max_images = 500 if options.max_images is None else options.max_images
    with process_group(options.device) as device:
        diagnosis = diagnose(options.names, data, max_images=max_images, device=device)
    print_diagnosis(diagnosis, console())
    if options.out is not None:
        print(f"written to {write_diagnosis(diagnosis, options.out)}")
    return 0


def _table(*columns: str) -> Table:
    table = Table(box=None, pad_edge=False)
    for column in columns:
        table.add_column(column, no_wrap=column in ("name", "also, by URI"))
    return table


def _num_parameters(spec: TeacherSpec) -> int:
    """As its file says; else counted, which takes a second."""
    if spec.parameters is not None:
        return spec.parameters
    from unic.teachers.load import outline_teacher

    encoder = outline_teacher(spec.name)
    assert encoder is not None, "named teachers have outlines"
    return sum(parameter.numel() for parameter in encoder.parameters())


def _is_here(spec: TeacherSpec) -> bool:
    """Whether its weights are on this machine."""
    if isinstance(spec.weights, WeightsFile):
        return spec.weights.here() is not None
    try:
        return spec.weights().is_file()
    except (ImportError, OSError, UnicError):
        return False
