"""What a dense evaluation is made of, as one value: `run_dense` runs it; segmentation.py and depth.py make one each.

Letters: B pictures, H W pixels.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple, Protocol, runtime_checkable

import numpy as np
import torch
from jaxtyping import Float, Shaped, UInt8
from torch import Tensor, nn

from unic.evals.dense.config import DenseConfig
from unic.evals.dense.crop_batches import CropSpec
from unic.evals.dense.frozen_backbone import FrozenBackbone
from unic.evals.dense.train_head import Schedule
from unic.method.types import TokenMaps


class Score(NamedTuple):
    """One number over all test images."""

    metric: str
    value: float
    unit: str
    higher_is_better: bool


@runtime_checkable
class DenseMetrics(Protocol):
    """Takes test images one at a time."""

    def update(self, predicted: Shaped[Tensor, "H W"], truth: Shaped[Tensor, "H W"]) -> None:
        """Raises DataError for an image that cannot be scored."""
        ...

    def scores(self) -> list[Score]:
        """The reported one first."""
        ...

    def details(self) -> list[dict[str, Any]]:
        """Entries for a JSON file beside the panels; none when the scores say it all."""
        ...


@dataclass(frozen=True, kw_only=True)
class DenseTask:
    """A head on a frozen backbone: how it is made, what it learns from, and how it is scored.

    name: of the evaluation. protocol: its version, which changes when its numbers do.
    make_head: a new head; its first weights are drawn from torch's generator.
    read_head: (weights of a file, name of the file) -> a head. Raises WeightsError where they are not one.
    loss: (head, maps of a batch, truth, step) -> what is minimised.
    stored_truth: number format in which `fast` keeps the truth.
    head_facts: everything the weights of the head depend on, beside the crops and what all tasks share.
    learned, given: settings named in the protocol where they are not the default, for a head that is learned here,
      and for one from a file. always_learned: those that are named even then, for a head that is learned here.
    read_truth: (file, width and height of the image) -> the truth of each pixel.
    predict: (image, head) -> the answer for each pixel of the whole image, on any device.
    colours: of an answer or a truth, for people.
    """

    name: str
    protocol: str
    config: DenseConfig
    backbone: FrozenBackbone
    make_head: Callable[[], nn.Module]
    read_head: Callable[[Mapping[str, Tensor], str], nn.Module]
    crops: CropSpec
    loss: Callable[[nn.Module, list[TokenMaps], Shaped[Tensor, "B H W"], int], Float[Tensor, ""]]
    schedule: Schedule
    stored_truth: torch.dtype
    head_facts: dict[str, Any]
    learned: tuple[str, ...]
    given: tuple[str, ...]
    always_learned: tuple[str, ...] = ()
    read_truth: Callable[[str, tuple[int, int]], Shaped[Tensor, "H W"]]
    predict: Callable[[UInt8[Tensor, "3 H W"], nn.Module], Shaped[Tensor, "H W"]]
    metrics: DenseMetrics
    colours: Callable[[Shaped[Tensor, "H W"]], UInt8[np.ndarray, "H W 3"]]
