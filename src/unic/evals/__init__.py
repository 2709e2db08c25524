"""Evaluations: what one is, what it gives, and how several are run on one data set.

An evaluation is one file in this folder (or a `--plugin`) that adds an `Evaluation` to `EVALUATIONS`; copy
knn.py. It takes an Encoder, so teachers, students, and students in a teacher's space all cost no code.

Letters: M images of a split, D width.
"""

import dataclasses
import hashlib
import json
import logging
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from jaxtyping import Float, Int64
from torch import Tensor

from unic.config import from_dict
from unic.data.datasets import DATASETS
from unic.data.images import ImageList
from unic.errors import ConfigError, DataError
from unic.evals.features import Precision, Token, extract
from unic.plugins import Registry
from unic.tokens import Encoder

log = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class Result:
    """One number, with all that is needed to compare it: a line of results.jsonl.

    protocol: version of the evaluation ("knn-1"), followed by every setting that is not the protocol's own.
      Only numbers of the same protocol and data hash are comparable.
    seconds: wall-clock time of the evaluation this number is from, features included.
    """

    model: str
    dataset: str
    evaluation: str
    metric: str
    value: float
    unit: str = "%"
    higher_is_better: bool = True
    protocol: str
    model_hash: str
    data_hash: str
    seconds: float = 0.0

    def to_json(self) -> str:
        """One line, without its end."""
        return json.dumps(dataclasses.asdict(self), allow_nan=False)

    @classmethod
    def from_json(cls, line: str) -> "Result":
        return from_dict(cls, json.loads(line), "result.")


@dataclass(frozen=True, kw_only=True)
class EvalOptions:
    """What all evaluations share; `options_type()` adds the settings of each one under its name."""

    batch_size: int = 256
    """Images encoded at a time; changes no result."""
    workers: int | None = None
    """Processes that read images; chosen by the number of processor cores when not given."""
    precision: Precision = "fp32"
    """Number format of the encoder; bf16 is faster, and named in the protocol of its results."""

    def __post_init__(self) -> None:
        if self.batch_size < 1:
            raise ConfigError(f"batch size {self.batch_size} of the evaluation: expected 1 or more")


class EvalData:
    """One data set as one encoder sees it. Features are computed when first asked for, then kept."""

    def __init__(
        self,
        name: str,
        train: ImageList,
        test: ImageList,
        *,
        encoder: Encoder,
        options: EvalOptions,
        device: torch.device,
        cache: Path | None,
    ):
        self.name = name
        self.train = train
        self.test = test
        self.device = device
        self._encoder = encoder
        self._options = options
        self._cache = cache
        self._kept: dict[tuple[str, Token], Tensor] = {}
        self.classes = train.classes or ()
        self.model_hash = encoder.fingerprint()
        self.data_hash = hashlib.sha256(f"{train.identity()} {test.identity()}".encode()).hexdigest()

    def features(self, split: Literal["train", "test"], token: Token = "cls") -> Float[Tensor, "M D"]:
        """float32 features of all images of a split, in the order of its ImageList, on the CPU."""
        if (split, token) not in self._kept:
            images = self.train if split == "train" else self.test
            features = extract(
                self._encoder,
                images,
                device=self.device,
                batch_size=self._options.batch_size,
                workers=self._options.workers,
                precision=self._options.precision,
                cache_root=self._cache,
                tokens=(token,),
            )
            self._kept[split, token] = features[token]
        return self._kept[split, token]

    def labels(self, split: Literal["train", "test"]) -> Int64[Tensor, " M"]:
        return torch.as_tensor((self.train if split == "train" else self.test).labels, dtype=torch.int64)

    def result(
        self,
        evaluation: str,
        metric: str,
        value: float,
        *,
        protocol: str,
        unit: str = "%",
        higher_is_better: bool = True,
    ) -> Result:
        """A Result with the identities of this encoder and this data filled in."""
        precision = "" if self._options.precision == "fp32" else f" precision={self._options.precision}"
        return Result(
            model=self._encoder.name,
            dataset=self.name,
            evaluation=evaluation,
            metric=metric,
            value=value,
            unit=unit,
            higher_is_better=higher_is_better,
            protocol=protocol + precision,
            model_hash=self.model_hash,
            data_hash=self.data_hash,
        )


@dataclass(frozen=True)
class Evaluation:
    """A way to judge an encoder on a data set with labels.

    run: gives the reported number first, then the others.
    settings: the defaults of its own options, a frozen dataclass that `run` finds by `own_settings`.
    """

    name: str
    run: Callable[[Encoder, EvalData, EvalOptions], list[Result]]
    description: str
    settings: Any = None


EVALUATIONS: Registry[Evaluation] = Registry("evaluation", "unic.evals")


def options_type() -> type[EvalOptions]:
    """EvalOptions and a field for each registered evaluation with settings, such as `--knn.temperature`."""
    own = [
        (name.replace("-", "_"), type(settings), dataclasses.field(default=settings))
        for name in EVALUATIONS
        if (settings := EVALUATIONS[name].settings) is not None
    ]
    return dataclasses.make_dataclass(
        "EvalOptions",
        own,
        bases=(EvalOptions,),
        frozen=True,
        kw_only=True,
        namespace={"__doc__": EvalOptions.__doc__},
    )


def own_settings(options: EvalOptions, evaluation: str) -> Any:
    """The settings of one evaluation: from `options` when `options_type()` made them, else its defaults."""
    return getattr(options, evaluation.replace("-", "_"), EVALUATIONS[evaluation].settings)


def evaluate(
    encoder: Encoder,
    dataset: str,
    data_root: Path,
    evals: Sequence[str],
    options: EvalOptions,
    *,
    cache: Path | None,
    device: torch.device,
) -> list[Result]:
    """Runs evaluations on the training and test images of one data set; the results in the order of `evals`.

    data_root: the folder of this data set.
    encoder: on `device` already; its train or eval mode, and all random states, are left as they are.
    cache: folder for features, used again as long as nothing they depend on changes; None keeps none.
    """
    if not evals:
        raise ConfigError(f"no evaluation named; known: {', '.join(EVALUATIONS)}")
    chosen = [EVALUATIONS[name] for name in evals]
    train, test = _read_splits(dataset, data_root)
    data = EvalData(dataset, train, test, encoder=encoder, options=options, device=device, cache=cache)
    results: list[Result] = []
    for evaluation in chosen:
        start = time.perf_counter()
        found = evaluation.run(encoder, data, options)
        seconds = time.perf_counter() - start
        results += [dataclasses.replace(result, seconds=seconds) for result in found]
        for r in found[:1]:
            log.info("%s  %s  %s %s %.2f %s", r.model, r.dataset, r.evaluation, r.metric, r.value, r.unit)
    return results


def _read_splits(dataset: str, data_root: Path) -> tuple[ImageList, ImageList]:
    """The images to learn from and those to score on, with labels that count through the same classes."""
    spec = DATASETS[dataset]
    train, test = (spec.read(data_root, split) for split in spec.splits)
    for images, split in zip((train, test), spec.splits, strict=True):
        if images.labels is None or images.classes is None:
            raise DataError(
                f"{dataset}, {split}: images without labels; an evaluation needs the class of each one"
            )
        if not len(images):
            raise DataError(f"{dataset}, {split}: no images in {data_root}")
    if spec.num_classes is not None and len(train.classes or ()) != spec.num_classes:
        raise DataError(
            f"{dataset}: {len(train.classes or ())} classes in {data_root}, expected {spec.num_classes}; "
            f"use --dataset image_folder for a part of it"
        )
    if test.classes != train.classes:
        test = _renumbered(test, train, dataset)
    return train, test


def _renumbered(test: ImageList, train: ImageList, dataset: str) -> ImageList:
    """The test images with the numbers of the training classes: folders number only the classes they hold."""
    number = {name: i for i, name in enumerate(train.classes or ())}
    strange = [name for name in test.classes or () if name not in number]
    if strange:
        raise DataError(
            f"{dataset}: {len(strange)} classes have test images and no training images, the first: "
            f"{', '.join(strange[:5])}; are both parts of the same data set?"
        )
    of_test = np.array([number[name] for name in test.classes or ()], dtype=np.int64)
    return dataclasses.replace(test, labels=of_test[test.labels], classes=train.classes)
