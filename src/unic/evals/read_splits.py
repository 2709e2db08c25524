"""The two parts of a data set as an evaluation needs them: what is learned from, what is scored, what is right.

Letters: Q test images, K classes, R ranks, A answers.
"""

import dataclasses
import hashlib
import math
from dataclasses import dataclass, field
from functools import cached_property, partial

import numpy as np
import torch
from jaxtyping import Float, Int64
from torch import Tensor

from unic.core.errors import DataError
from unic.data.datasets import DATASETS, DatasetSpec, Roots, Targets, read_split, read_targets
from unic.data.dense.read_annotations import Depths, Masks
from unic.data.labeled_images import ImageList

NUM_RANKED = 5


@dataclass(frozen=True)
class Splits:
    """train: None for an evaluation that learns nothing.

    targets: what counts as right for each test image, in the class numbers of `train`; none where pixels are judged.
    truth: how the files of a dense data set say what is right for each pixel.
    """

    train: ImageList | None
    test: ImageList
    targets: Targets = field(default_factory=partial(Targets, (), ()))
    truth: Masks | Depths | None = None

    def identity(self) -> str:
        """sha256 of the paths, sizes and labels of all images: the same on every machine that holds the same split."""
        parts = [images.identity(times=False) for images in (self.train, self.test) if images is not None]
        if self.truth is not None:
            parts.append(repr(self.truth))
        return hashlib.sha256(" ".join(parts).encode()).hexdigest()

    def ranked(self, scores: Float[Tensor, "Q K"]) -> Int64[Tensor, "Q R"]:
        """Classes from the highest score to the lowest, up to five, of those that count in this set; -1 for none."""
        if len(self.targets.scored) < scores.shape[1]:
            scored = torch.tensor(self.targets.scored, device=scores.device)
            masked = torch.full_like(scores, -math.inf)
            masked[:, scored] = scores[:, scored]
            scores = masked
        return ranking(scores)

    def hits(self, ranked: Int64[Tensor, "Q R"]) -> torch.Tensor:
        """For each test image, whether one of these classes is a right answer."""
        return (ranked.cpu()[:, :, None] == self._answers[:, None, :]).flatten(1).any(1)

    def accuracy(self, ranked: Int64[Tensor, "Q R"], top: int) -> float:
        """Share of the test images, in percent, with a right answer among the first `top`."""
        return 100 * int(self.hits(ranked[:, :top]).sum()) / len(self.test)

    def mean_per_class(self, ranked: Int64[Tensor, "Q R"]) -> float:
        """Mean over the classes with test images of the share of their images that is right, in percent.

        The reference reports it under the name m_ap; it is no average precision.
        """
        hits, labels = self.hits(ranked[:, :1]).numpy(), self.test.labels
        assert labels is not None, "read_splits refuses images without labels"
        return 100 * float(np.mean([hits[labels == c].mean() for c in np.unique(labels)]))

    @cached_property
    def _answers(self) -> Int64[Tensor, "Q A"]:
        """Padded with -2, which is no class and no rank."""
        answers = self.targets.answers
        padded = torch.full((len(answers), max(map(len, answers))), -2)
        for count in {len(of_image) for of_image in answers}:
            rows = [i for i, of_image in enumerate(answers) if len(of_image) == count]
            padded[rows, :count] = torch.tensor([answers[i] for i in rows])
        return padded


def ranking(scores: Float[Tensor, "Q K"]) -> Int64[Tensor, "Q R"]:
    """Classes from the highest score to the lowest, up to five; -1 for a score of -inf or NaN (no answer).

    Among equal scores the class of smaller number is first.
    """
    scores = scores.nan_to_num(nan=-math.inf, posinf=math.inf, neginf=-math.inf)
    ordered, classes = scores.sort(dim=1, descending=True, stable=True)
    return torch.where(ordered > -math.inf, classes, -1)[:, :NUM_RANKED]


def read_splits(
    dataset: str, roots: Roots, *, uses_train: bool = True, allow_count_mismatch: bool = False
) -> Splits:
    """Reads the parts of a data set; a set for testing only is judged by what its training set teaches.

    Raises DataError for images that are missing, have no labels, or are of classes that cannot be learned.
    """
    spec = DATASETS[dataset]
    test = _read(spec, roots, spec.splits[-1], allow_count_mismatch)
    if spec.task != "classification":
        train = _read(spec, roots, spec.splits[0], allow_count_mismatch) if uses_train else None
        return Splits(train, test, truth=spec.truth(roots.find(dataset)))
    train = None
    if uses_train:
        learned = DATASETS[spec.train_set] if spec.train_set else spec
        train = _read(learned, roots, learned.splits[0], allow_count_mismatch)
        if not spec.train_set and test.classes != train.classes:
            test = _renumbered(test, train, dataset)
    return Splits(train, test, read_targets(spec, roots.find(dataset), test))


def _read(spec: DatasetSpec, roots: Roots, split: str, allow_count_mismatch: bool) -> ImageList:
    root = roots.find(spec.name)
    try:
        images = read_split(spec, root, split, allow_count_mismatch=allow_count_mismatch)
    except DataError as error:
        raise DataError(f"{error}\nexpected layout of {spec.name}: {spec.layout}") from error
    if spec.task == "classification" and (images.labels is None or images.classes is None):
        raise DataError(
            f"{spec.name}, {split}: images without labels; an evaluation needs the class of each one"
        )
    if not len(images):
        raise DataError(f"{spec.name}, {split}: no images in {root}")
    return images


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
