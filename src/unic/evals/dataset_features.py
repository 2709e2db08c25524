"""One data set as one encoder sees it: features, labels, accuracies, and results with their identities.

Letters: M images of a split, D width, Q test images, K classes, R ranks.
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Literal

import torch
from jaxtyping import Float, Int64
from torch import Tensor

from unic.core.results import Result
from unic.data.labeled_images import ImageList
from unic.evals.features import Token, extract
from unic.evals.read_splits import NUM_RANKED, Splits, ranking
from unic.evals.registry import EvalOptions
from unic.method.types import Encoder

_ROWS_AT_ONCE = 4096


@dataclass(frozen=True, kw_only=True)
class EvalData:
    """One data set as one encoder sees it. Features are computed when first asked for, then kept.

    encoder: on `device` already.
    cache: folder for features, classifiers and other things worth keeping; None keeps nothing.
    """

    name: str
    splits: Splits
    encoder: Encoder
    options: EvalOptions
    device: torch.device
    cache: Path | None
    _features: dict[tuple[str, Token], Tensor] = field(default_factory=dict, init=False, repr=False)

    @property
    def train(self) -> ImageList | None:
        """None for an evaluation that learns nothing."""
        return self.splits.train

    @property
    def test(self) -> ImageList:
        return self.splits.test

    @property
    def classes(self) -> tuple[str, ...]:
        """Of the training part, which may be another data set's; of the test part where there is none."""
        return (self.splits.train or self.splits.test).classes or ()

    @cached_property
    def model_hash(self) -> str:
        return self.encoder.content_hash()

    @cached_property
    def data_hash(self) -> str:
        return self.splits.identity()

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
        accuracies = {"top1": self.accuracy(best, 1), f"top{NUM_RANKED}": self.accuracy(best, NUM_RANKED)}
        targets = self.splits.targets
        if all(len(answers) == 1 for answers in targets.answers):
            accuracies["mean_per_class"] = self.splits.mean_per_class(best)
        if len(targets.scored) < num_classes[0]:
            accuracies["top1_all_classes"] = self.accuracy(of_all, 1)
        return accuracies

    def features(self, split: Literal["train", "test"], token: Token = "cls") -> Float[Tensor, "M D"]:
        """float32 features of all images of a split, in the order of its ImageList, on the CPU."""
        if (split, token) not in self._features:
            images = self._images(split)
            (features,) = extract(
                [self.encoder],
                images,
                self.options,
                device=self.device,
                cache_root=self.cache,
                tokens=(token,),
            )
            self._features[split, token] = features[token]
        return self._features[split, token]

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
        precision = "" if self.options.precision == "fp32" else f" precision={self.options.precision}"
        return Result(
            model=self.encoder.name,
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
