"""The measures of depth (Eigen et al., 2014): each the mean over the test images of what it is for one image.

Letters: H W pixels, P pixels that count.
"""

from collections import defaultdict
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from unic.core.errors import DataError
from unic.data.dense.read_annotations import Depths
from unic.evals.dense.task import Score


class DepthMetrics:
    """rmse in metres; abs_rel, sq_rel (metres), log10, rmse_log, silog (percent): lower is better.

    d1, d2, d3: shares in [0, 1] of pixels that are off by less than a factor of 1.25, its square, its cube.
    """

    def __init__(self, depths: Depths):
        self._depths = depths
        self._sums: defaultdict[str, float] = defaultdict(float)
        self._count = 0

    def update(self, predicted: Float[Tensor, "H W"], truth: Float[Tensor, "H W"]) -> None:
        """Metres. Pixels count inside the scored rows and columns, where the truth is between nearest and farthest.

        Raises DataError for an image without such a pixel.
        """
        predicted = predicted.to(truth.device)
        top, bottom, left, right = self._depths.scored
        predicted, truth = predicted[top:bottom, left:right], truth[top:bottom, left:right]
        counts = (truth > self._depths.nearest) & (truth < self._depths.farthest)
        if not counts.any():
            raise DataError("no pixel of known depth in the part that is judged")
        for name, value in _measures(predicted[counts].double(), truth[counts].double()).items():
            self._sums[name] += value
        self._count += 1

    def scores(self) -> list[Score]:
        """rmse, which is reported, first."""
        return [
            Score(name, total / self._count, "m" if name == "rmse" else "", name.startswith("d"))
            for name, total in self._sums.items()
        ]

    def details(self) -> list[dict[str, Any]]:
        return []


def _measures(predicted: Float[Tensor, " P"], truth: Float[Tensor, " P"]) -> dict[str, float]:
    off, e = predicted - truth, predicted.log() - truth.log()
    ratio = torch.maximum(predicted / truth, truth / predicted)
    measures = {
        "rmse": off.square().mean().sqrt(),
        "abs_rel": (off.abs() / truth).mean(),
        "sq_rel": (off.square() / truth).mean(),
        "log10": (predicted.log10() - truth.log10()).abs().mean(),
        "rmse_log": e.square().mean().sqrt(),
        "silog": 100 * (e.square().mean() - e.mean().square()).clamp(min=0).sqrt(),
        **{f"d{power}": (ratio < 1.25**power).double().mean() for power in (1, 2, 3)},
    }
    return {name: float(value) for name, value in measures.items()}
