"""Looks at teachers on the user's images and says what they are like, how alike they are, and what is wrong.

diagnose -> Diagnosis -> doctor.json and the tables of print_diagnosis.py. What is worth a warning is in findings.py.
"""

import dataclasses
import logging
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from unic.core.errors import ConfigError
from unic.core.files import write_json
from unic.teachers.live_teachers import check_names, load_teachers
from unic.tools.doctor.features import TeacherFeatures, extract_features
from unic.tools.doctor.findings import Finding, TeacherFacts, find
from unic.tools.doctor.metrics import PairMetrics, TeacherMetrics, pair_metrics, teacher_metrics
from unic.tools.doctor.normalisation import Trial, declared, published, try_normalisations
from unic.tools.doctor.sample_images import read_sample_images, spread
from unic.tools.visualize.attention_maps import has_attention
from unic.version import __version__

log = logging.getLogger(__name__)

FILE = "doctor.json"

_IMAGES_TO_TRY = 32
"""Images on which other normalisations are tried."""

_BATCH_SIZE = 32

MEMORY = (
    "parameters and buffers, plus the most bytes of tensors alive at once in a batch of {batch}; scratch space inside "
    "operators does not count"
)


@dataclass(frozen=True, kw_only=True)
class Diagnosis:
    """What was found. images: how many were looked at; unreadable: paths of those that could not be."""

    data: str
    images: int
    unreadable: list[str]
    seconds: float
    grid: tuple[int, int]
    """On which patches of different teachers were compared."""
    memory: str
    """How it was measured."""
    facts: list[TeacherFacts]
    rows: list[TeacherMetrics]
    pairs: list[PairMetrics]
    trials: dict[str, list[Trial]]
    """By teacher, the normalisations that were tried, its own first."""
    findings: list[Finding]

    def record(self) -> dict[str, Any]:
        """As it stands in doctor.json."""
        return {
            "unic": __version__,
            "data": self.data,
            "images": self.images,
            "unreadable": self.unreadable,
            "seconds": round(self.seconds, 1),
            "grid": list(self.grid),
            "memory": self.memory,
            "teachers": [dataclasses.asdict(row) for row in self.rows],
            "pairs": [dataclasses.asdict(pair) for pair in self.pairs],
            "normalisations": [
                {"name": name, "convention": trial.convention, "mean": trial.normalisation.mean,
                 "std": trial.normalisation.std, "cosine": trial.cosine, "misfit": trial.misfit}
                for name, trials in self.trials.items()
                for trial in trials
            ],
            "warnings": [dataclasses.asdict(finding) for finding in self.findings],
        }  # fmt: skip


def diagnose(
    references: Sequence[str],
    data: Path,
    *,
    max_images: int = 500,
    device: torch.device,
) -> Diagnosis:
    """Examines every teacher alone, then every pair.

    references: as `load_teacher` takes them; raises ConfigError where two have one name.
    data: a folder of images with its subfolders, or a text file that lists images.
    """
    start = time.monotonic()
    if not references:
        raise ConfigError("which teachers? unic teachers check NAME... --data DIR; see `unic teachers list`")
    check_names(references)
    encoders = load_teachers(references)
    sizes = [encoder.image_size for encoder in encoders]
    pictures = read_sample_images(data, sizes, max_images, batch_size=_BATCH_SIZE)
    grid = min(encoder.grid for encoder in encoders)  # patches are averaged, none is invented
    few = torch.from_numpy(spread(len(pictures), _IMAGES_TO_TRY))  # over all classes, not the first alone
    seen: dict[str, TeacherFeatures] = {}
    trials: dict[str, list[Trial]] = {}
    facts = []
    for reference, encoder in zip(references, encoders, strict=True):
        began = time.monotonic()
        encoder.to(device)
        seen[encoder.name] = extract_features(encoder, pictures, grid, batch_size=_BATCH_SIZE, device=device)
        some = pictures.views[encoder.image_size][few]
        trials[encoder.name] = try_normalisations(encoder, some, device)
        encoder.to("cpu")
        facts.append(
            TeacherFacts(
                name=encoder.name,
                declared=declared(encoder),
                published=published(reference, encoder),
                image_size=encoder.image_size,
                grid=encoder.grid,
                has_attention=has_attention(encoder),
            )
        )
        log.info("%s: %d images in %.1f s", encoder.name, len(pictures), time.monotonic() - began)
    rows = [row for name, features in seen.items() for row in teacher_metrics(name, features)]
    pairs = pair_metrics(seen)
    findings = find(facts, rows, pairs, trials, seen, pictures.paths, pictures.unreadable)
    return Diagnosis(
        data=str(data),
        images=len(pictures),
        unreadable=pictures.unreadable,
        seconds=time.monotonic() - start,
        grid=grid,
        memory=MEMORY.format(batch=min(_BATCH_SIZE, len(pictures))),
        facts=facts,
        rows=rows,
        pairs=pairs,
        trials=trials,
        findings=findings,
    )


def make_folder(folder: Path) -> None:
    """Makes the folder for doctor.json, or says why not, before time is spent."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ConfigError(
            f"--out {folder}: no folder can be made there ({error.strerror}); give the folder that gets {FILE}"
        ) from error


def write_diagnosis(diagnosis: Diagnosis, folder: Path) -> Path:
    """Writes FOLDER/doctor.json, whole or not at all; an earlier one is replaced."""
    write_json(folder / FILE, diagnosis.record())
    return folder / FILE
