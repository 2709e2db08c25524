"""Several encoders, one data set: the comparison behind `unic evaluate` and `unic demo`."""

import dataclasses
import logging
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import torch

from unic import parallel
from unic.cache import cache_dir
from unic.checkpoints import check, load, load_untrained
from unic.errors import ConfigError
from unic.evals import EVALUATIONS, EvalOptions, evaluate
from unic.models.encoder import ImageEncoder
from unic.run import RunDir
from unic.teachers import short_name

log = logging.getLogger(__name__)


def evaluate_encoders(
    references: Sequence[str],
    dataset: str,
    data_root: Path,
    evals: Sequence[str],
    options: EvalOptions,
    *,
    device: torch.device,
    untrained: bool = False,
    out: Path | None = None,
) -> list[dict[str, Any]]:
    """Evaluates every encoder; gives the results as records, and adds them to `out` and to the runs they belong to.

    untrained: evaluate the student of each run folder as it was initialised, too.
    """
    if not references:
        raise ConfigError("no encoder to evaluate; name a teacher, a URI or a run folder")
    for name in evals:
        EVALUATIONS[name]  # unknown names are found before anything is computed
    for reference in references:
        check(reference)
    if out:
        out.parent.mkdir(parents=True, exist_ok=True)
        out.open("a").close()
    if parallel.world_size() > 1:
        raise ConfigError("unic evaluate runs in one process; start it without torchrun")
    records = []
    for reference, encoder in _encoders(references, untrained):
        results = evaluate(
            encoder.to(device), dataset, data_root, evals, options, cache=cache_dir(), device=device
        )
        found = [dataclasses.asdict(result) for result in results]
        files = [out] if out else []
        if Path(reference).is_dir():
            files.append(Path(reference) / "results.jsonl")
        for file in files:
            try:
                for record in found:
                    RunDir(file.parent).append(file.name, record)
            except OSError as error:
                log.warning("results are not written to %s: %s", file, error)
        records += found
    return records


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
