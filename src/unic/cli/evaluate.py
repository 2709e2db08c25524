"""Measure encoders: unic evaluate ENCODER... --data-root DIR --evals knn logreg-fast | --suite transfer"""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated

import tyro

from unic.cli.common import Common, parse, process_group
from unic.core.errors import ConfigError
from unic.data.datasets import DATASETS, Roots
from unic.evals.registry import EvalOptions, options_type
from unic.evals.suites import suite


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
    """Which evaluations: knn, logreg-fast, logreg, zero-shot; segmentation; depth; or a plugin's by its name. When none
    is named, those of the suite, or knn, segmentation or depth, whichever the data set is for."""
    skip_missing: bool = False
    """Leave out data sets that have no folder in data_root."""
    one_by_one: bool = False
    """Hold one encoder in memory at a time; images are then decoded for each of them."""
    untrained: bool = False
    """Also evaluate the student of each run as it was initialised: what a result has to beat."""
    out: Path | None = None
    """File to which results are added, one JSON line each; those of a run are always added to its results.jsonl."""
    # An EvalOptions with the settings of each evaluation there is, a plugin's too: tyro takes the default's own type.
    settings: Annotated[EvalOptions, tyro.conf.arg(name="")] = field(default_factory=lambda: options_type()())

    def plan(self) -> dict[str, tuple[str, ...]]:
        """By data set, the evaluations."""
        if self.suite is None:
            return {name: self.evals or (_usual(name),) for name in self.dataset or ("image_folder",)}
        if self.dataset:
            raise ConfigError("a suite names its data sets: --suite or --dataset, not both")
        return {name: self.evals or own for name, own in suite(self.suite).items()}


def run(words: list[str]) -> int:
    options = parse(Options, words, "evaluate")

    from unic.core import distributed
    from unic.evals.evaluate_encoders import EvaluationRequest, baselines, compute_features, evaluate_encoders
    from unic.tools.report.results_table import print_results

    request = EvaluationRequest(
        references=options.encoders,
        plan=options.plan(),
        roots=Roots.parse(options.data_root),
        options=options.settings,
        untrained=options.untrained,
        skip_missing=options.skip_missing,
        one_by_one=options.one_by_one,
    )
    with process_group(options.device) as device:
        if distributed.world_size() > 1:
            compute_features(request, device=device)
        is_main = distributed.is_main()
    # Features take all processes; what is learned from them is for one, and the others need not wait for it.
    if is_main:
        results = evaluate_encoders(request, device=device, out=options.out)
        print_results(results, baselines(options.encoders))
    return 0


def _usual(dataset: str) -> str:
    """The evaluation that is run on a data set when none is named."""
    task = DATASETS[dataset].task
    return "knn" if task == "classification" else task
