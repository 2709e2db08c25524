"""What linear classifiers are chosen and judged by: images held out of training, accuracies, log-odds.

Letters: M training images, D width.
"""

import math
from collections.abc import Sequence

import numpy as np
import torch
from jaxtyping import Float, Int64
from torch import Tensor

from unic.core import keyed_random
from unic.core.errors import ConfigError, DataError

SHARE = 0.2
"""Part of the training images of each class that is held out (UNIC's protocol)."""


def split_trainval(
    labels: Int64[Tensor, " M"], *, seed: int, compat: bool = False
) -> tuple[Int64[Tensor, " _"], Int64[Tensor, " _"]]:
    """Rows to learn from and rows held out to choose settings by; both in ascending order, on the CPU.

    Of each class max(1, floor(SHARE n)) images are held out, drawn by (seed, class): the images of one class
    do not change the draw of another. A class of one image keeps it for learning, so that every class is
    learned; the reference would hold it out. Numbers of classes may have gaps.
    compat: as the reference counts. There a class too small for the share changes the share of all classes
      after it to one n-th, and a class of one image leaves nothing of itself, or of any class after it, to
      learn from. Meant for comparisons on sets such as iNaturalist; affects the choice of settings only.
    Raises DataError when nothing can be held out.
    """
    numbers = labels.cpu().numpy()
    share = SHARE
    train, held_out = [], []
    for label in np.unique(numbers):
        rows = np.flatnonzero(numbers == label)
        rows = keyed_random.generator(seed, "evals.validation", int(label)).permutation(rows)
        count = math.floor(share * len(rows))
        if compat and count == 0:
            count, share = 1, 1 / len(rows)
        elif not compat:
            count = min(max(1, count), len(rows) - 1)
        held_out.append(rows[:count])
        train.append(rows[count:])
    if not sum(map(len, held_out)) or not sum(map(len, train)):
        raise DataError(
            f"{len(numbers)} training images of {len(train)} classes: none left to "
            f"{'hold out' if sum(map(len, train)) else 'learn from'}; a classifier is chosen on held-out "
            "images and needs a class with two or more"
        )
    return _sorted(train), _sorted(held_out)


def log_odds(accuracies: Sequence[float], *, clip: float = 0.01) -> float:
    """Mean over data sets of ln(p / (1 - p)), natural units; the average t-ReX reports over 15 data sets.

    accuracies: in percent.
    clip: in percent; an accuracy nearer to 0 or 100 counts as this far from it, so that one perfect data set
      does not make the mean infinite (at 0.01 one data set is worth at most 9.2).
    """
    if not len(accuracies) or not all(0 <= p <= 100 for p in accuracies):
        raise ConfigError(
            f"log-odds of {list(accuracies)}: expected one or more accuracies in percent, 0 to 100"
        )
    shares = np.clip(accuracies, clip, 100 - clip) / 100
    return float(np.mean(np.log(shares / (1 - shares))))


def check_features(features: Float[Tensor, "M D"], labels: Int64[Tensor, " M"], num_classes: int) -> None:
    """Raises DataError unless a classifier of two or more classes can be learned from these rows."""
    bad = ~features.isfinite().all(dim=1)
    if bad.any():
        raise DataError(
            f"{int(bad.sum())} of {len(features)} rows of features are not finite, the first is row "
            f"{int(bad.nonzero()[0])}; check the encoder's weights, or try --precision fp32"
        )
    present = labels.unique()
    if len(present) < 2:
        raise DataError(
            f"training images of {len(present)} class{'es' * (len(present) != 1)}; a linear classifier "
            "needs two or more"
        )
    if int(present[0]) < 0 or int(present[-1]) >= num_classes:
        raise DataError(
            f"labels from {int(present[0])} to {int(present[-1])}: expected 0 to {num_classes - 1}"
        )


def _sorted(parts: list[np.ndarray]) -> Int64[Tensor, " _"]:
    return torch.from_numpy(np.sort(np.concatenate(parts)))
