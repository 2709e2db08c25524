"""The measures of segmentation: pixels counted over the whole test set, then ratios (mmseg 0.30, intersect_and_union).

Letters: K classes, H W pixels, P pixels that count.
"""

import math
from typing import Any

import torch
from jaxtyping import Float64, Int64, UInt8
from torch import Tensor

from unic.data.dense.read_annotations import IGNORED, Masks
from unic.evals.dense.task import Score


class SegmentationMetrics:
    """mIoU, mean accuracy over classes and accuracy over pixels, in percent.

    confusion_KK: pixels of each true class (row) that were taken for each class (column), over all images.
    """

    def __init__(self, masks: Masks, device: torch.device):
        self._masks = masks
        num_classes = len(masks.classes)
        self._confusion_KK = torch.zeros(num_classes, num_classes, dtype=torch.int64, device=device)

    def update(self, predicted: Int64[Tensor, "H W"], truth: UInt8[Tensor, "H W"]) -> None:
        self._confusion_KK += confusion(predicted, truth.to(predicted.device), len(self._confusion_KK))

    def scores(self) -> list[Score]:
        shares = segmentation_scores(self._confusion_KK.cpu())
        return [Score(metric, 100 * share, "%", True) for metric, share in shares.items()]

    def details(self) -> list[dict[str, Any]]:
        """The IoU, the true pixels and the colour of each class."""
        confusion_KK, masks = self._confusion_KK.cpu(), self._masks
        pixels = confusion_KK.sum(1).tolist()
        shares = [None if math.isnan(share) else share for share in class_iou(confusion_KK).tolist()]
        return [
            {"class": name, "colour": colour, "iou": share, "pixels": count}
            for name, colour, share, count in zip(masks.classes, masks.palette, shares, pixels, strict=True)
        ]


def confusion(
    predicted: Int64[Tensor, "H W"], truth: UInt8[Tensor, "H W"], num_classes: int
) -> Int64[Tensor, "K K"]:
    """Pixels of each true class (row) that were taken for each class (column); ignored pixels count nowhere."""
    counted = truth != IGNORED
    pairs: Int64[Tensor, " P"] = truth[counted].long() * num_classes + predicted[counted]
    return pairs.bincount(minlength=num_classes**2).view(num_classes, num_classes)


def segmentation_scores(confusion_KK: Int64[Tensor, "K K"]) -> dict[str, float]:
    """Shares in [0, 1]: miou first; a class that is neither there nor predicted counts in no mean."""
    counts = confusion_KK.double()
    hits, true = counts.diagonal(), counts.sum(1)
    return {
        "miou": float(class_iou(confusion_KK).nanmean()),
        "mean_class_accuracy": float((hits / true).nanmean()),
        "pixel_accuracy": float(hits.sum() / true.sum()),
    }


def class_iou(confusion_KK: Int64[Tensor, "K K"]) -> Float64[Tensor, " K"]:
    """Intersection over union of each class, in [0, 1]; NaN for one that is neither there nor predicted."""
    counts = confusion_KK.double()
    return counts.diagonal() / (counts.sum(0) + counts.sum(1) - counts.diagonal())
