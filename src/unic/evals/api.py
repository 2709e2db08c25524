"""Evaluations: what one is, what it gives, and how several are run on one data set.

An evaluation is one file in this folder (or a `--plugin`) that adds an `Evaluation` to `EVALUATIONS`; copy
knn.py. It takes an Encoder, so teachers, students, and students in a teacher's space all cost no code.

Letters: M images of a split, D width, Q test images, K classes, R ranks.
"""

import dataclasses
import logging
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch
from jaxtyping import Float, Int64
from torch import Tensor

from unic.core.errors import ConfigError
from unic.core.plugins import Registry
from unic.data.datasets import DATASETS, Roots, Targets, Task
from unic.data.image_list import ImageList
from unic.evals.features import Precision, Token, extract
from unic.evals.results import Result
from unic.evals.splits import NUM_RANKED, Splits, ranking, read_splits
from unic.method.tokens import Encoder

log = logging.getLogger(__name__)

_ROWS_AT_ONCE = 4096


@dataclass(frozen=True, kw_only=True)
class EvalOptions:
    """What all evaluations share; `options_type()` adds the settings of each one under its name."""

    batch_size: int = 256
    """Images encoded at a time; changes no result."""
    workers: int | None = None
    """Processes that read images; chosen by the number of processor cores when not given."""
    precision: Precision = "fp32"
    """Number format of the encoder; bf16 is faster, and named in the protocol of its results."""
    allow_count_mismatch: bool = False
    """Accept a data set of which images are missing; its data hash tells such results apart."""
    head: Path | None = None
    """A published or kept head for segmentation or depth, used as it is instead of learning one."""

    def __post_init__(self) -> None:
        if self.batch_size < 1:
            raise ConfigError(f"batch size {self.batch_size} of the evaluation: expected 1 or more")


class EvalData:
    """One data set as one encoder sees it. Features are computed when first asked for, then kept.

    cache: folder for features, classifiers and other things worth keeping; None keeps nothing.
    """

    def __init__(
        self,
        name: str,
        splits: Splits,
        *,
        encoder: Encoder,
        options: EvalOptions,
        device: torch.device,
        cache: Path | None,
    ):
        self.name = name
        self.splits = splits
        self.device = device
        self.cache = cache
        self._encoder = encoder
        self._options = options
        self._kept: dict[tuple[str, Token], Tensor] = {}
        self.classes = (splits.train or splits.test).classes or ()
        self.model_hash = encoder.fingerprint()
        self.data_hash = splits.identity()

    @property
    def train(self) -> ImageList | None:
        """None for an evaluation that learns nothing."""
        return self.splits.train

    @property
    def test(self) -> ImageList:
        return self.splits.test

    @property
    def targets(self) -> Targets:
        return self.splits.targets

    def accuracy(self, ranked: Int64[Tensor, "Q R"], top: int) -> float:
        """Share of the test images, in percent, with a right answer among the first `top` classes."""
        return self.splits.accuracy(ranked, top)

    def accuracies(
        self, score: Callable[[Float[Tensor, "B D"]], Float[Tensor, "B K"]], features: Float[Tensor, "Q D"]
    ) -> dict[str, float]:
        """Top-1 and top-5; mean per-class accuracy, where each image has one answer; all in percent.

        Where only some classes count in the test set, also the top-1 among all classes.
        score: from some rows of features to the scores of all classes.
        """
        parts = [
            (self.splits.ranked(scores).cpu(), ranking(scores).cpu(), torch.tensor([scores.shape[1]]))
            for scores in map(score, features.split(_ROWS_AT_ONCE))
        ]
        best, of_all, num_classes = (torch.cat(some) for some in zip(*parts, strict=True))
        found = {"top1": self.accuracy(best, 1), f"top{NUM_RANKED}": self.accuracy(best, NUM_RANKED)}
        if all(len(answers) == 1 for answers in self.targets.answers):
            found["mean_per_class"] = self.splits.mean_per_class(best)
        if len(self.targets.scored) < num_classes[0]:
            found["top1_all_classes"] = self.accuracy(of_all, 1)
        return found

    def seen_by(self, encoder: Encoder) -> "EvalData":
        """The same data through another encoder."""
        return EvalData(
            self.name,
            self.splits,
            encoder=encoder,
            options=self._options,
            device=self.device,
            cache=self.cache,
        )

    def features(self, split: Literal["train", "test"], token: Token = "cls") -> Float[Tensor, "M D"]:
        """float32 features of all images of a split, in the order of its ImageList, on the CPU."""
        if (split, token) not in self._kept:
            features = extract(
                self._encoder,
                self._images(split),
                device=self.device,
                batch_size=self._options.batch_size,
                workers=self._options.workers,
                precision=self._options.precision,
                cache_root=self.cache,
                tokens=(token,),
            )
            self._kept[split, token] = features[token]
        return self._kept[split, token]

    def labels(self, split: Literal["train", "test"]) -> Int64[Tensor, " M"]:
        """Positions in the classes of this split, which differ where the training part is another data set."""
        return torch.as_tensor(self._images(split).labels, dtype=torch.int64)

    def _images(self, split: Literal["train", "test"]) -> ImageList:
        images = self.train if split == "train" else self.test
        assert images is not None, "an evaluation that reads training images has uses_train=True"
        return images

    def result(
        self,
        evaluation: str,
        metric: str,
        value: float,
        *,
        protocol: str,
        unit: str = "%",
        higher_is_better: bool = True,
        seed: int | None = None,
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
            seed=seed,
        )


@dataclass(frozen=True)
class Evaluation:
    """A way to judge an encoder on a data set with labels.

    run: gives the reported number first, then the others.
    settings: the defaults of its own options, a frozen dataclass that `run` finds by `own_settings`.
    uses_train: whether it needs training images; without, `EvalData.train` is None.
    task: the kind of data set it is for.
    fits: whether it can judge an encoder at all; suites leave out what does not.
    """

    name: str
    run: Callable[[Encoder, EvalData, EvalOptions], list[Result]]
    description: str
    settings: Any = None
    uses_train: bool = True
    task: Task = "classification"
    fits: Callable[[Encoder], bool] = lambda encoder: True


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
        uses_train: EvalData(dataset, splits, encoder=encoder, options=options, device=device, cache=cache)
        for uses_train, splits in splits_for(dataset, data_root, chosen, options).items()
    }
    results: list[Result] = []
    for evaluation in chosen:
        start = time.perf_counter()
        found = evaluation.run(encoder, data[evaluation.uses_train], options)
        seconds = time.perf_counter() - start
        results += [dataclasses.replace(result, seconds=seconds) for result in found]
        for r in found[:1]:
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
