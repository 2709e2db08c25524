"""Several encoders, one or more data sets: the comparison behind `unic evaluate` and `unic demo`."""

import dataclasses
import datetime
import logging
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch

from unic.core.cache_dir import cache_dir
from unic.core.errors import ConfigError, DataError
from unic.core.results import Result, StoredResult
from unic.core.run_folder import RunDir
from unic.data.datasets import DATASETS, Roots
from unic.evals.evaluate import evaluate, evaluations_for, splits_for
from unic.evals.features import extract
from unic.evals.linear.trainval_split import log_odds
from unic.evals.registry import EVALUATIONS, EvalOptions
from unic.models.encoder import ImageEncoder
from unic.students.load_encoder import check, load, load_untrained
from unic.teachers import short_name
from unic.version import __version__

log = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class EvaluationRequest:
    """Which encoders are evaluated, on what, and how.

    references: teachers by name, URIs, run folders.
    plan: by data set, the evaluations; of a plan with several sets, those that do not fit an encoder are left out.
    roots: where the data sets are.
    untrained: evaluate the student of each run folder as it was initialised, too.
    skip_missing: leave out data sets that have no folder, instead of refusing to start.
    one_by_one: hold one encoder in memory at a time; else all, and every image is decoded once for all of them.
    """

    references: Sequence[str]
    plan: Mapping[str, Sequence[str]]
    roots: Roots
    options: EvalOptions
    untrained: bool = False
    skip_missing: bool = False
    one_by_one: bool = False


def evaluate_encoders(
    request: EvaluationRequest, *, device: torch.device, out: Path | None = None
) -> list[StoredResult]:
    """Evaluates every encoder; adds the results to `out`, and to the runs they belong to."""
    request = _checked(request)
    references, plan, roots, options = request.references, request.plan, request.roots, request.options
    if len(plan) > 1:
        # So that a mistake in the last data set is reported before hours are spent.
        for dataset, evals in plan.items():
            splits_for(dataset, roots, evaluations_for(dataset, evals), options)
    if not request.one_by_one and len(references) + request.untrained > 1:
        compute_features(request, device=device)
    if out:
        out.parent.mkdir(parents=True, exist_ok=True)
        out.open("a").close()
    results: list[StoredResult] = []
    for reference, encoder in _encoders(references, request.untrained):
        encoder.to(device)
        of_encoder: list[StoredResult] = []
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
            new = evaluate(encoder, dataset, roots, fitting, options, cache=cache_dir(), device=device)
            stored = [_stored(result, reference, roots.find(dataset)) for result in new]
            _write(stored, _files(reference, out))
            of_encoder += stored
        means = mean_log_odds(of_encoder)
        _write(means, _files(reference, out))
        results += of_encoder + means
    written = {file for reference in references for file in _files(reference, out)}
    if written and results:
        log.info("results are added to %s", ", ".join(sorted(map(str, written))))
    elif results:
        log.info("results are written to no file: --out results.jsonl writes them")
    return results


def compute_features(request: EvaluationRequest, *, device: torch.device) -> None:
    """Puts into the cache what `evaluate_encoders` with the same request will read from it.

    The processes of a job share the work, so a job of many can do this and one process the rest.
    """
    request = _checked(request)
    options = request.options
    for group in [[r] for r in request.references] if request.one_by_one else [request.references]:
        encoders = [encoder.to(device) for _, encoder in _encoders(group, request.untrained)]
        for dataset, evals in request.plan.items():
            # An evaluation that learns nothing may look through another encoder: a student's head for texts.
            # Dense evaluations keep features of their own, in the process that learns from them.
            chosen = [
                evaluation
                for evaluation in evaluations_for(dataset, evals)
                if evaluation.uses_train and evaluation.task == "classification"
            ]
            for splits in splits_for(dataset, request.roots, chosen, options).values():
                for images in filter(None, (splits.train, splits.test)):
                    extract(encoders, images, options, device=device, cache_root=cache_dir())


def mean_log_odds(results: Sequence[StoredResult]) -> list[StoredResult]:
    """One number for one model over several data sets to learn, ImageNet-1K aside, as t-ReX reports it (Table 2).

    results: of one model. Nothing for fewer than two data sets.
    """
    by_evaluation: dict[str, dict[str, StoredResult]] = {}
    for result in results:
        if result.metric == "top1" and result.dataset != "in1k" and not DATASETS[result.dataset].train_set:
            by_evaluation.setdefault(result.evaluation, {})[result.dataset] = result
    return [
        dataclasses.replace(
            next(iter(sets.values())),
            dataset=f"mean of {len(sets)}",
            metric="log_odds",
            value=log_odds([result.value for result in sets.values()]),
            unit="nats",
            protocol=f"log-odds-1 {','.join(sets)}",
            data_hash=" ".join(result.data_hash[:12] for result in sets.values()),
            seconds=sum(result.seconds for result in sets.values()),
            time=_now(),
        )
        for sets in by_evaluation.values()
        if len(sets) > 1
    ]


def _checked(request: EvaluationRequest) -> EvaluationRequest:
    """The request with the data sets that there are; all mistakes are reported before anything is computed."""
    plan, options = request.plan, request.options
    if not request.references:
        raise ConfigError("no encoder to evaluate; name a teacher, a URI or a run folder")
    for dataset, evals in plan.items():
        evaluations_for(dataset, evals)
    dense = [name for evals in plan.values() for name in evals if EVALUATIONS[name].task != "classification"]
    if options.head is not None and len(dense) != 1:
        raise ConfigError(
            f"--head {options.head} is for one evaluation of segmentation or depth on one data set, and "
            f"{len(dense) or 'none'} of them {'are' if len(dense) > 1 else 'is'} asked for"
        )
    for reference in request.references:
        check(reference)
    if len(plan) == 1:
        return request
    roots = request.roots
    needed = {dataset: DATASETS[dataset].train_set or dataset for dataset in plan}
    missing = [name for name, learned in needed.items() if not (roots.has(name) and roots.has(learned))]
    if missing and not request.skip_missing:
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
    return dataclasses.replace(request, plan=plan)


def _stored(result: Result, reference: str, root: Path) -> StoredResult:
    return StoredResult(
        **vars(result),
        reference=reference,
        root=str(root.expanduser().absolute()),
        unic=__version__,
        time=_now(),
    )


def _now() -> str:
    return datetime.datetime.now().astimezone().isoformat(timespec="seconds")


def _files(reference: str, out: Path | None) -> list[Path]:
    """Where the results of an encoder are added: the file that was asked for, and that of its run."""
    return [
        *([out] if out else []),
        *([Path(reference) / "results.jsonl"] if Path(reference).is_dir() else []),
    ]


def _write(results: Sequence[StoredResult], files: Sequence[Path]) -> None:
    for file in files:
        try:
            for result in results:
                RunDir(file.parent).append(file.name, result.to_record())
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
        yield reference, load(reference).replace(name=label)
        if untrained and Path(reference).is_dir():
            yield reference, load_untrained(Path(reference)).replace(name=f"{label} untrained")
