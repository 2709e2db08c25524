"""Runs several evaluations of one encoder on one data set."""

import dataclasses
import logging
import time
from collections.abc import Sequence
from pathlib import Path

import torch

from unic.core.errors import ConfigError
from unic.core.results import Result
from unic.data.datasets import DATASETS, Roots
from unic.evals.dataset_features import EvalData
from unic.evals.read_splits import Splits, read_splits
from unic.evals.registry import EVALUATIONS, EvalOptions, Evaluation
from unic.method.types import Encoder

log = logging.getLogger(__name__)


def evaluate(
    encoder: Encoder,
    dataset: str,
    data_root: Path | Roots,
    evals: Sequence[str],
    options: EvalOptions,
    *,
    cache: Path | None,
    device: torch.device,
) -> list[Result]:
    """Runs evaluations on the training and test images of one data set; the results in the order of `evals`.

    data_root: the folder of this data set, or a folder of data sets.
    encoder: on `device` already; its train or eval mode, and all random states, are left as they are.
    cache: folder for features, used again as long as nothing they depend on changes; None keeps none.
    """
    chosen = evaluations_for(dataset, evals)
    data = {
        uses_train: EvalData(
            name=dataset, splits=splits, encoder=encoder, options=options, device=device, cache=cache
        )
        for uses_train, splits in splits_for(dataset, data_root, chosen, options).items()
    }
    results: list[Result] = []
    for evaluation in chosen:
        start = time.perf_counter()
        measured = evaluation.run(encoder, data[evaluation.uses_train], options)
        seconds = time.perf_counter() - start
        others = {result.evaluation for result in measured} - {evaluation.name}
        assert not others, f"the evaluation {evaluation.name} gives results of {', '.join(others)}"
        results += [dataclasses.replace(result, seconds=seconds) for result in measured]
        for r in measured[:1]:
            log.info("%s  %s  %s %s %.2f %s", r.model, r.dataset, r.evaluation, r.metric, r.value, r.unit)
    return results


def evaluations_for(dataset: str, names: Sequence[str]) -> list[Evaluation]:
    """The evaluations of these names. Raises ConfigError where there is none, or one that is not for this data set."""
    task = DATASETS[dataset].task
    possible = [name for name in EVALUATIONS if EVALUATIONS[name].task == task]
    if not names:
        raise ConfigError(f"no evaluation named for {dataset}; possible: {', '.join(possible)}")
    chosen = [EVALUATIONS[name] for name in names]
    wrong = [evaluation.name for evaluation in chosen if evaluation.task != task]
    if wrong:
        raise ConfigError(
            f"{dataset} is for {task}, and {', '.join(wrong)} is not; possible: {', '.join(possible)} (--evals)"
        )
    return chosen


def splits_for(
    dataset: str, data_root: Path | Roots, chosen: Sequence[Evaluation], options: EvalOptions
) -> dict[bool, Splits]:
    """The parts of a data set that these evaluations need, by `Evaluation.uses_train`."""
    roots = data_root if isinstance(data_root, Roots) else Roots(data_root)
    return {
        uses_train: read_splits(
            dataset, roots, uses_train=uses_train, allow_count_mismatch=options.allow_count_mismatch
        )
        for uses_train in {evaluation.uses_train for evaluation in chosen}
    }
