"""The linear head of segmentation: batch norm and a 1x1 convolution on maps of patches (DINOv2, Sec. 7.4).

Letters: B pictures, D E widths, K classes, h w grid, H W pixels, y x places that count.
"""

from collections.abc import Mapping, Sequence

import torch
import torch.nn.functional as F
from jaxtyping import Float, UInt8
from torch import Tensor, nn

from unic.core.errors import WeightsError
from unic.data.dense.read_annotations import IGNORED
from unic.method.types import TokenMaps
from unic.models.state_keys import below
from unic.models.weights import load_strictly


class SegmentationHead(nn.Module):
    """Scores of the classes for each patch.

    widths: of the maps it reads, which it joins along their width (mmseg's resize_concat).
    """

    def __init__(self, widths: Sequence[int], num_classes: int):
        super().__init__()
        self.widths = tuple(widths)
        self.bn = nn.BatchNorm2d(sum(widths))
        self.conv_seg = nn.Conv2d(sum(widths), num_classes, 1)
        nn.init.normal_(self.conv_seg.weight, std=0.01)
        nn.init.zeros_(self.conv_seg.bias)  # pyright: ignore[reportArgumentType]

    def forward(self, maps: Sequence[TokenMaps]) -> Float[Tensor, "B K h w"]:
        """On the grid of the first map; a CNN's others are brought to it."""
        first, *others = (layer.patches for layer in maps)
        size = first.shape[-2:]
        joined = [
            other if other.shape[-2:] == size else F.interpolate(other, size, mode="bilinear")
            for other in others
        ]
        return self.conv_seg(self.bn(torch.cat([first, *joined], dim=1)))


def pixel_loss(scores: Float[Tensor, "B K h w"], truth: UInt8[Tensor, "B H W"]) -> Float[Tensor, ""]:
    """Cross-entropy at every pixel, of scores upsampled to the pixels.

    The mean is over all pixels, those that are ignored included, as mmseg has it (avg_non_ignore=False).
    """
    upsampled = F.interpolate(scores, truth.shape[-2:], mode="bilinear", align_corners=False)
    return _cross_entropy(upsampled, truth)


def sampled_pixel_loss(
    scores: Float[Tensor, "B K h w"], truth: UInt8[Tensor, "B H W"], *, stride: int, offset: tuple[int, int]
) -> Float[Tensor, ""]:
    """`pixel_loss` at one pixel of every square of `stride` x `stride`; its mean over all offsets is `pixel_loss`.

    offset: the row and the column within each square. With stride 1 it is `pixel_loss`.
    Neighbours at less than a patch say nearly the same, so a sixteenth of the work teaches the same.
    """
    height, width = truth.shape[-2:]
    rows_yh = _weights(height, scores.shape[2], scores)[offset[0] :: stride]
    columns_xw = _weights(width, scores.shape[3], scores)[offset[1] :: stride]
    sampled = rows_yh @ scores @ columns_xw.T  # (B, K, h, w) -> (B, K, y, x)
    return _cross_entropy(sampled, truth[:, offset[0] :: stride, offset[1] :: stride])


def read_segmentation_head(
    state: Mapping[str, Tensor], widths: Sequence[int], num_classes: int, origin: str
) -> SegmentationHead:
    """A head as mmseg, DINOv2 and UNIC publish it (decode_head.*), or as `SegmentationHead` names it.

    Raises WeightsError naming `origin` where it is no such head, or one for other features or classes.
    """
    # What else a checkpoint of mmseg may hold is another head's (auxiliary_head) or the backbone's. Files of the first
    # versions of torch have no counter of batches, which plays no part in eval mode.
    own = {"bn.num_batches_tracked": torch.tensor(0), **(below("decode_head.", state) or state)}
    weight = own.get("conv_seg.weight")
    if weight is None or weight.ndim != 4:
        raise WeightsError(
            f"{origin} is no head for segmentation: it has no conv_seg.weight of four dimensions "
            f"({', '.join(list(state)[:5]) or 'it is empty'})"
        )
    head_classes, head_width = weight.shape[:2]
    if head_classes != num_classes:
        raise WeightsError(f"{origin} tells {head_classes} classes apart, this data set has {num_classes}")
    if head_width != sum(widths):
        raise WeightsError(
            f"{origin} reads features of width {head_width}, and the encoder gives {' + '.join(map(str, widths))}"
            f"{_hint(head_width, widths)}"
        )
    head = SegmentationHead(widths, num_classes)
    load_strictly(head, own, origin)
    return head.eval()


def _hint(width: int, widths: Sequence[int]) -> str:
    if len(widths) == 1 and width == 4 * widths[0]:
        return "; it is a head for the last four blocks (--segmentation.blocks last4)"
    if len(widths) == 4 and 4 * width == sum(widths):
        return "; it is a head for the last block (--segmentation.blocks last)"
    return "; it may sit on the encoder in a teacher's space (<run>@<teacher>), or belong to another encoder"


def _cross_entropy(scores: Tensor, truth: Tensor) -> Tensor:
    total = F.cross_entropy(scores, truth.long(), ignore_index=IGNORED, reduction="sum")
    return total / truth.numel()


def _weights(size: int, grid: int, like: Tensor) -> Float[Tensor, "H h"]:
    """Bilinear upsampling of one axis as a matrix."""
    eye = torch.eye(grid, dtype=like.dtype, device=like.device)
    return F.interpolate(eye[None], size, mode="linear", align_corners=False)[0].T
