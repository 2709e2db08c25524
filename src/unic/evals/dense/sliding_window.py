"""Sliding windows: what a picture larger than the window is cut into, and how the answers are put together.

Letters: B windows, K classes, H W pixels of the picture.
"""

from collections.abc import Callable
from typing import NamedTuple

import torch
import torch.nn.functional as F
from jaxtyping import Float, UInt8
from torch import Tensor


class Window(NamedTuple):
    """Rows `top` to `bottom` and columns `left` to `right`, ends excluded."""

    top: int
    bottom: int
    left: int
    right: int


def windows(height: int, width: int, *, size: int, stride: int) -> list[Window]:
    """A grid from the top left; the last of a row or column is moved back inside, a small picture is one window.

    Source: slide_inference of mmseg 0.30; 512 and 341 for ADE20K.
    """
    return [
        Window(top, min(top + size, height), left, min(left + size, width))
        for top in _starts(height, size, stride)
        for left in _starts(width, size, stride)
    ]


def slide(
    image: UInt8[Tensor, "3 H W"],
    score: Callable[[UInt8[Tensor, "B 3 _ _"]], Float[Tensor, "B K _ _"]],
    *,
    size: int,
    stride: int,
    at_once: int,
) -> Float[Tensor, "K H W"]:
    """The mean of the scores of all windows that hold a pixel; each window's scores are upsampled to its pixels.

    score: of some windows, which are all alike in size; its grid may be coarser than the pixels.
    """
    height, width = image.shape[1:]
    places = windows(height, width, size=size, stride=stride)
    total, count = None, torch.zeros(height, width)
    for start in range(0, len(places), at_once):
        some = places[start : start + at_once]
        crops = torch.stack([image[:, w.top : w.bottom, w.left : w.right] for w in some])
        scores = F.interpolate(score(crops), crops.shape[-2:], mode="bilinear", align_corners=False)
        if total is None:
            total = scores.new_zeros(scores.shape[1], height, width)
            count = count.to(scores.device)
        for window, window_scores in zip(some, scores, strict=True):
            total[:, window.top : window.bottom, window.left : window.right] += window_scores
            count[window.top : window.bottom, window.left : window.right] += 1
    assert total is not None, "a picture has at least one window"
    return total / count


def _starts(length: int, size: int, stride: int) -> list[int]:
    number = max(length - size + stride - 1, 0) // stride + 1
    return [max(min(i * stride, length - size), 0) for i in range(number)]
