"""Several encoders, one or more data sets: the comparison behind `unic evaluate` and `unic demo`."""

import dataclasses
import datetime
import logging
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

from unic.core.cache_dir import cache_dir
from unic.core.errors import ConfigError, DataError
from unic.core.run_folder import RunDir
from unic.data.datasets import DATASETS, Roots
from unic.evals.evaluate import evaluate, evaluations_for, splits_for
from unic.evals.features import extract_together
from unic.evals.linear.trainval_split import log_odds
from unic.evals.registry import EVALUATIONS, EvalOptions
from unic.models.encoder import ImageEncoder
from unic.students.load import check, load, load_untrained
from unic.teachers import short_name
from unic.version import __version__

log = logging.getLogger(__name__)


def evaluate_encoders(
    references: Sequence[str],
    plan: Mapping[str, Sequence[str]],
    data_root: Path | Roots,
    options: EvalOptions,
    *,
    device: torch.device,
    untrained: bool = False,
    skip_missing: bool = False,
    one_by_one: bool = False,
    out: Path | None = None,
) -> list[dict[str, Any]]:
    """Evaluates every encoder; gives the results as records, and adds them to `out` and to the runs they belong to.

    plan: by data set, the evaluations; of a plan with several sets, those that do not fit an encoder are left out.
    untrained: evaluate the student of each run folder as it was initialised, too.
    skip_missing: leave out data sets that have no folder in `data_root`, instead of refusing to start.
    one_by_one: hold one encoder in memory at a time; else all, and every image is decoded once for all of them.
    """
    plan, roots = _checked(references, plan, data_root, options, skip_missing)
    if len(plan) > 1:
        for (
            dataset,
            evals,
        ) in plan.items():  # so that the last one's mistakes are heard of before hours are spent
            splits_for(dataset, roots, evaluations_for(dataset, evals), options)
    if not one_by_one and len(references) + untrained > 1:
        compute_features(references, plan, roots, options, device=device, untrained=untrained)
    if out:
        out.parent.mkdir(parents=True, exist_ok=True)
        out.open("a").close()
    records = []
    for reference, encoder in _encoders(references, untrained):
        encoder.to(device)
        measured = []
        for dataset, evals in plan.items():
            fitting = [name for name in evals if EVALUATIONS[name].fits(encoder)]
            if not fitting and len(references) == len(plan) == 1:
                fitting = list(evals)  # it says itself why not
            for name in sorted(set(evals) - set(fitting)):
                log.warning(
                    "%s  %s: %s is left out, the encoder is not made for it", encoder.name, dataset, name
                )
            if not fitting:
                continue
            results = evaluate(encoder, dataset, roots, fitting, options, cache=cache_dir(), device=device)
            where = {"reference": reference, "root": str(roots.find(dataset).expanduser().absolute())}
            found = [dataclasses.asdict(result) | where for result in results]
            _write(found, _files(reference, out))
            measured += found
        average = mean_log_odds(measured)
        _write(average, _files(reference, out))
        records += measured + average
    written = {file for reference in references for file in _files(reference, out)}
    if written and records:
        log.info("results are added to %s", ", ".join(sorted(map(str, written))))
    elif records:
        log.info("results are kept in no file: --out results.jsonl keeps them")
    return records


def compute_features(
    references: Sequence[str],
    plan: Mapping[str, Sequence[str]],
    data_root: Path | Roots,
    options: EvalOptions,
    *,
    device: torch.device,
    untrained: bool = False,
    skip_missing: bool = False,
    one_by_one: bool = False,
) -> None:
    """Puts into the cache what `evaluate_encoders` with the same arguments will read from it.

    The processes of a job share the work, so a job of many can do this and one process the rest.
    """
    plan, roots = _checked(references, plan, data_root, options, skip_missing)
    for group in [[reference] for reference in references] if one_by_one else [references]:
        encoders = [encoder.to(device) for _, encoder in _encoders(group, untrained)]
        for dataset, evals in plan.items():
            # An evaluation that learns nothing may look through another encoder: a student's head for texts.
            # Dense evaluations keep features of their own, in the process that learns from them.
            chosen = [
                evaluation
                for evaluation in evaluations_for(dataset, evals)
                if evaluation.uses_train and evaluation.task == "classification"
            ]
            for splits in splits_for(dataset, roots, chosen, options).values():
                for images in filter(None, (splits.train, splits.test)):
                    extract_together(
                        encoders,
                        images,
                        device=device,
                        batch_size=options.batch_size,
                        workers=options.workers,
                        precision=options.precision,
                        cache_root=cache_dir(),
                    )


def mean_log_odds(records: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """One number for one model over several data sets to learn, ImageNet-1K aside, as t-ReX reports it (Table 2).

    records: of one model. Nothing for fewer than two data sets.
    """
    found: dict[str, dict[str, Mapping[str, Any]]] = {}
    for record in records:
        name, spec = record["dataset"], DATASETS[record["dataset"]]
        if record["metric"] == "top1" and name != "in1k" and not spec.train_set:
            found.setdefault(record["evaluation"], {})[name] = record
    return [
        {
            **next(iter(sets.values())),
            "dataset": f"mean of {len(sets)}",
            "evaluation": evaluation,
            "metric": "log_odds",
            "value": log_odds([record["value"] for record in sets.values()]),
            "unit": "nats",
            "protocol": f"log-odds-1 {','.join(sets)}",
            "data_hash": " ".join(record["data_hash"][:12] for record in sets.values()),
            "seconds": sum(record["seconds"] for record in sets.values()),
        }
        for evaluation, sets in found.items()
        if len(sets) > 1
    ]


def _checked(
    references: Sequence[str],
    plan: Mapping[str, Sequence[str]],
    data_root: Path | Roots,
    options: EvalOptions,
    skip_missing: bool,
) -> tuple[Mapping[str, Sequence[str]], Roots]:
    """The plan and the places of its data sets, with all mistakes found before anything is computed."""
    if not references:
        raise ConfigError("no encoder to evaluate; name a teacher, a URI or a run folder")
    for dataset, evals in plan.items():
        evaluations_for(dataset, evals)
    dense = [name for evals in plan.values() for name in evals if EVALUATIONS[name].task != "classification"]
    if options.head is not None and len(dense) != 1:
        raise ConfigError(
            f"--head {options.head} is for one evaluation of segmentation or depth on one data set, and "
            f"{len(dense) or 'none'} of them {'are' if len(dense) > 1 else 'is'} asked for"
        )
    for reference in references:
        check(reference)
    roots = data_root if isinstance(data_root, Roots) else Roots(data_root)
    if len(plan) == 1:
        return plan, roots
    needed = {dataset: DATASETS[dataset].train_set or dataset for dataset in plan}
    missing = [name for name, learned in needed.items() if not (roots.has(name) and roots.has(learned))]
    if missing and not skip_missing:
        raise DataError(
            f"{len(missing)} of {len(plan)} data sets have no folder in {roots.common or 'the places given'}: "
            f"{', '.join(missing)}; add them, name their folders with --data-root NAME=FOLDER, or leave them out with "
            f"--skip-missing"
        )
    if missing:
        log.warning("left out, because they have no folder: %s", ", ".join(missing))
    plan = {dataset: evals for dataset, evals in plan.items() if dataset not in missing}
    if not plan:
        raise DataError(f"no data set is left: none has a folder in {roots.common}")
    return plan, roots


def _files(reference: str, out: Path | None) -> list[Path]:
    """Where the results of an encoder are added: the file that was asked for, and that of its run."""
    return [
        *([out] if out else []),
        *([Path(reference) / "results.jsonl"] if Path(reference).is_dir() else []),
    ]


def _write(records: Sequence[dict[str, Any]], files: Sequence[Path]) -> None:
    now = {"unic": __version__, "time": datetime.datetime.now().astimezone().isoformat(timespec="seconds")}
    for file in files:
        try:
            for record in records:
                RunDir(file.parent).append(file.name, record | now)
        except OSError as error:
            log.warning("results are not written to %s: %s", file, error)


def baselines(references: Sequence[str]) -> list[str]:
    """Names of the encoders that are no students of ours: what those are compared with."""
    return [label for reference, label in labels(references).items() if not Path(reference).is_dir()]


def labels(references: Sequence[str]) -> dict[str, str]:
    """What each encoder is called in tables: its short name, or the reference itself where two names are the same."""
    names = {
        reference: Path(reference).resolve().name if Path(reference).is_dir() else short_name(reference)
        for reference in references
    }
    shared = {name for name in names.values() if list(names.values()).count(name) > 1}
    return {reference: reference if name in shared else name for reference, name in names.items()}


def _encoders(references: Sequence[str], untrained: bool) -> Iterator[tuple[str, ImageEncoder]]:
    """One at a time: large teachers need not fit into memory together."""
    for reference, label in labels(references).items():
        encoder = load(reference)
        encoder.name = label
        yield reference, encoder
        if untrained and Path(reference).is_dir():
            encoder = load_untrained(Path(reference))
            encoder.name = f"{label} untrained"
            yield reference, encoder
