"""evaluate, datasets: from encoders to numbers."""

import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from unic.cli.options import Common, parse, process_group
from unic.core.errors import ConfigError
from unic.core.plugins import unknown

if TYPE_CHECKING:
    from unic.data.datasets.check import Part


def evaluate(words: list[str]) -> int:
    """Measure encoders: unic evaluate ENCODER... --data-root DIR --evals knn logreg-fast | --suite transfer"""
    from unic.core import distributed
    from unic.data.datasets import Roots
    from unic.evals.evaluate_many import EvaluationRequest, baselines, compute_features, evaluate_encoders
    from unic.tools.report.results_table import print_results

    options = parse(_evaluate_options(), words, "evaluate")
    request = EvaluationRequest(
        references=options.encoders, plan=options.plan(), roots=Roots.parse(options.data_root),
        options=options.settings, untrained=options.untrained, skip_missing=options.skip_missing,
        one_by_one=options.one_by_one,
    )  # fmt: skip
    with process_group(options.device) as device:
        if distributed.world_size() > 1:
            compute_features(request, device=device)
        is_main = distributed.is_main()
    # Features take all processes; what is learned from them is for one, and the others need not wait for it.
    if is_main:
        results = evaluate_encoders(request, device=device, out=options.out)
        print_results(results, baselines(options.encoders))
    return 0


def datasets(words: list[str]) -> int:
    """List data sets, check one on disk: unic datasets list | check NAME --data-root DIR"""
    actions = {"list": _list, "check": _check}
    action, *rest = words or ["list"]
    if action in ("-h", "--help"):
        print(datasets.__doc__)
        return 0
    if action not in actions:
        raise ConfigError(unknown("word after unic datasets", action, actions))
    return actions[action](rest)


def _list(words: list[str]) -> int:
    from rich.console import Console
    from rich.table import Table

    from unic.data.datasets import DATASETS

    if words in (["-h"], ["--help"]):
        print("unic datasets list: the data sets unic knows, and how their folders are laid out")
        return 0
    if words:
        raise ConfigError(f"unic datasets list takes no more words, got {' '.join(words)!r}")
    table = Table("name", "parts", "images", "classes", "layout", "source")
    table.columns[0].no_wrap = True
    table.columns[-1].overflow = "fold"  # an address cut short is of no use
    for name in DATASETS:
        spec = DATASETS[name]
        counts = " / ".join(f"{spec.counts[split]:,}" if spec.counts else "any" for split in spec.splits)
        table.add_row(
            name, " / ".join(spec.splits), counts, str(spec.num_classes or "any"), spec.layout, spec.source
        )
    Console(width=None if sys.stdout.isatty() else 160).print(table)
    return 0


def _check(words: list[str]) -> int:
    from unic.data.datasets import Roots
    from unic.data.datasets.check import check_dataset

    options = parse(_check_options(), words, "datasets check")
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


def _evaluate_options() -> type:
    import tyro

    from unic.evals.api import options_type
    from unic.evals.suites import suite

    of_evaluations = options_type()

    @dataclass(frozen=True, kw_only=True)
    class Options(Common):
        encoders: tyro.conf.Positional[tuple[str, ...]]
        """Teachers by name, URIs (timm:..., file:...), or run folders."""
        data_root: tuple[str, ...]
        """Folder of the data set, or one with a folder for each data set; NAME=FOLDER for a set that lies elsewhere."""
        dataset: tuple[str, ...] = ()
        """Data sets; see `unic datasets list`. image_folder when none is named."""
        suite: str | None = None
        """transfer, robustness, dense, paper or quick: data sets, and evaluations of each, instead of `dataset`."""
        evals: tuple[str, ...] = ()
        """Which evaluations: knn, logreg-fast, logreg, zero-shot; segmentation; depth. When none is named, those of the
        suite, or knn, segmentation or depth, whichever the data set is for."""
        skip_missing: bool = False
        """Leave out data sets that have no folder in data_root."""
        one_by_one: bool = False
        """Hold one encoder in memory at a time; images are then decoded for each of them."""
        untrained: bool = False
        """Also evaluate the student of each run as it was initialised: what a result has to beat."""
        out: Path | None = None
        """File to which results are added, one JSON line each; those of a run are always added to its results.jsonl."""
        settings: Annotated[of_evaluations, tyro.conf.arg(name="")] = field(  # type: ignore[valid-type]
            default_factory=of_evaluations
        )

        def plan(self) -> dict[str, tuple[str, ...]]:
            """By data set, the evaluations."""
            if self.suite is None:
                return {name: self.evals or (_usual(name),) for name in self.dataset or ("image_folder",)}
            if self.dataset:
                raise ConfigError("a suite names its data sets: --suite or --dataset, not both")
            return {name: self.evals or own for name, own in suite(self.suite).items()}

    return Options


def _usual(dataset: str) -> str:
    """The evaluation that is run on a data set when none is named."""
    from unic.data.datasets import DATASETS

    task = DATASETS[dataset].task
    return "knn" if task == "classification" else task


def _check_options() -> type:
    import tyro

    @dataclass(frozen=True, kw_only=True)
    class Options:
        name: tyro.conf.Positional[str]
        """A name of `unic datasets list`."""
        data_root: tuple[str, ...]
        """Folder of the data set, or one with a folder of its name; or NAME=FOLDER."""
        samples: int = 50
        """Images of each part to decode."""
        allow_count_mismatch: bool = False
        """Accept a part of the data set."""

    return Options
