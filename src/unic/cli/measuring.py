"""evaluate, datasets: from encoders to numbers."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated

from unic.cli.options import Common, expect_list, parse, process_group


def evaluate(words: list[str]) -> int:
    """Measure encoders: unic evaluate ENCODER... --data-root DIR --evals knn"""
    from unic.compare import baselines, evaluate_encoders
    from unic.report.tables import print_results

    options = parse(_evaluate_options(), words, "evaluate")
    with process_group(options.device) as device:
        results = evaluate_encoders(
            options.encoders, options.dataset, options.data_root, options.evals, options.settings,
            device=device, untrained=options.untrained, out=options.out,
        )  # fmt: skip
        print_results(results, baselines(options.encoders))
    return 0


def datasets(words: list[str]) -> int:
    """List the data sets that evaluations know, and how their folders must look: unic datasets list."""
    from rich.console import Console
    from rich.table import Table

    from unic.data.datasets import DATASETS

    expect_list(words, "datasets")
    table = Table("name", "splits", "classes", "layout", "source")
    for name in DATASETS:
        spec = DATASETS[name]
        table.add_row(name, " / ".join(spec.splits), str(spec.num_classes or "any"), spec.layout, spec.source)
    Console().print(table)
    return 0


def _evaluate_options() -> type:
    import tyro

    from unic.evals import options_type

    of_evaluations = options_type()

    @dataclass(frozen=True, kw_only=True)
    class Options(Common):
        encoders: tyro.conf.Positional[tuple[str, ...]]
        """Teachers by name, URIs (timm:..., file:...), or run folders."""
        data_root: Path
        """Folder of the data set."""
        dataset: str = "image_folder"
        """How the folder is read; see `unic datasets list`."""
        evals: tuple[str, ...] = ("knn",)
        """Which evaluations."""
        untrained: bool = False
        """Also evaluate the student of each run as it was initialised: what a result has to beat."""
        out: Path | None = None
        """File to which results are added, one JSON line each; those of a run are always added to its results.jsonl."""
        settings: Annotated[tyro.conf.FlagConversionOff[of_evaluations], tyro.conf.arg(name="")] = field(  # type: ignore[valid-type]
            default_factory=of_evaluations
        )

    return Options
