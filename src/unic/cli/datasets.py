"""List data sets, check one on disk: unic datasets list | check NAME --data-root DIR"""

from dataclasses import dataclass
from typing import TYPE_CHECKING

import tyro
from rich.table import Table

from unic.cli.common import console, parse, process_group, run_action
from unic.data.datasets import DATASETS, Roots

if TYPE_CHECKING:
    from unic.data.check_dataset import Part


@dataclass(frozen=True, kw_only=True)
class CheckOptions:
    name: tyro.conf.Positional[str]
    """A name of `unic datasets list`."""
    data_root: tuple[str, ...]
    """Folder of the data set, or one with a folder of its name; or NAME=FOLDER."""
    samples: int = 50
    """Images of each part to decode."""
    allow_count_mismatch: bool = False
    """Accept a part of the data set."""


def run(words: list[str]) -> int:
    return run_action("datasets", {"list": _list, "check": _check}, words, usage=__doc__ or "")


def _list(words: list[str]) -> int:
    table = Table("name", "parts", "images", "classes", "layout", "source")
    table.columns[0].no_wrap = True
    table.columns[-1].overflow = "fold"  # an address cut short is of no use
    for name in DATASETS:
        spec = DATASETS[name]
        counts = " / ".join(f"{spec.counts[split]:,}" if spec.counts else "any" for split in spec.splits)
        table.add_row(
            name, " / ".join(spec.splits), counts, str(spec.num_classes or "any"), spec.layout, spec.source
        )
    console().print(table)
    return 0


def _check(words: list[str]) -> int:
    options = parse(CheckOptions, words, "datasets check")

    from unic.data.check_dataset import check_dataset

    with process_group("cpu"):
        parts = check_dataset(
            options.name, Roots.parse(options.data_root), samples=options.samples,
            allow_count_mismatch=options.allow_count_mismatch,
        )  # fmt: skip
    for part in parts:
        print(
            f"{options.name} {part.split}: {part.images:,} images in {part.root}; {_classes(part)}"
            f"{part.decoded} decoded; sha256 {part.identity[:12]}"
        )
    return 0


def _classes(part: "Part") -> str:
    """How the images are spread over classes, where there are any."""
    if not part.classes:
        return ""
    if not part.most:
        return f"{part.present} of {part.classes} classes in the masks decoded; "
    return f"{part.present} of {part.classes} classes, {part.fewest} to {part.most} images each; "
