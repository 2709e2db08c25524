"""The numbers of the tables: of each teacher's CLS tokens and patches, and of each pair of teachers.

Letters: M images, N patches, K patches kept of an image, R rows of any of them, D E widths.
"""

import itertools
from dataclasses import dataclass, replace
from typing import Any, Literal

import torch
from jaxtyping import Float
from torch import Tensor

from unic.method.config import LossConfig, StatisticsConfig
from unic.method.losses import token_loss
from unic.method.representation_metrics import (
    dead_share,
    effective_rank,
    linear_cka,
    neighbour_agreement,
    outlier_share,
)
from unic.method.standardize import Standardizer
from unic.method.types import Tokens, Widths
from unic.tools.doctor.features import TeacherFeatures
from unic.tools.doctor.sample_images import spread

Token = Literal["cls", "patches"]

LARGEST_DIMENSIONS = 3


@dataclass(frozen=True, kw_only=True)
class TeacherMetrics:
    """One kind of token of one teacher. None: too few images, or none with finite features.

    norm: mean length of a token.
    effective_rank: at most `rank_limit`.
    dead_share, outlier_share: as in method/representation_metrics.py, in [0, 1].
    largest_share: part of the mean squared length that the three largest dimensions hold, in [0, 1].
    images_per_second, memory_mb: of the teacher, so the same for its CLS tokens and patches; 10^6 bytes, parameters
      and the tensors alive at once in a batch.
    expected_loss: what a student that always answers the mean gets at first, by the defaults of a recipe: statistics
      of one half of the images (the warm-up), loss on the other.
    expected_loss_without_floor: the same as published: statistics of one batch (`first_batch` images), no std_floor.
    """

    name: str
    token: Token
    norm: float | None = None
    effective_rank: float | None = None
    rank_limit: int | None = None
    dead_share: float | None = None
    outlier_share: float | None = None
    largest_share: float | None = None
    images_per_second: float
    memory_mb: float
    parameters_mb: float
    expected_loss: float | None = None
    expected_loss_without_floor: float | None = None
    first_batch: int


@dataclass(frozen=True, kw_only=True)
class PairMetrics:
    """How alike two teachers are in one kind of token; both in [0, 1]. Patches are compared on one grid."""

    a: str
    b: str
    token: Token
    cka: float
    neighbours: float


def teacher_metrics(name: str, seen: TeacherFeatures) -> list[TeacherMetrics]:
    costs = TeacherMetrics(
        name=name,
        token="cls",
        images_per_second=seen.images_per_second,
        memory_mb=(seen.parameter_bytes + seen.batch_bytes) / 1e6,
        parameters_mb=seen.parameter_bytes / 1e6,
        first_batch=min(seen.batch_size, (len(seen.finite) + 1) // 2),
    )
    good, batch = seen.finite, seen.batch_size
    cls = seen.cls[good][:, None]
    return [
        replace(costs, **_measured(cls, cls.norm(dim=-1), batch)),
        replace(costs, token="patches", **_measured(seen.patches[good], seen.norms[good], batch)),
    ]


def pair_metrics(seen: dict[str, TeacherFeatures]) -> list[PairMetrics]:
    """Of every pair its CLS tokens, then its patches; none where fewer than three images are finite in both."""
    metrics = []
    for a, b in itertools.combinations(seen, 2):
        both = seen[a].finite & seen[b].finite
        if both.sum() < 3:
            continue
        patches_a, patches_b = (seen[name].aligned[both].flatten(0, 1) for name in (a, b))
        metrics.append(_pair(a, b, "cls", seen[a].cls[both], seen[b].cls[both]))
        metrics.append(_pair(a, b, "patches", patches_a, patches_b))
    return metrics


def _pair(a: str, b: str, token: Token, x: Float[Tensor, "R D"], y: Float[Tensor, "R E"]) -> PairMetrics:
    return PairMetrics(a=a, b=b, token=token, cka=linear_cka(x, y), neighbours=neighbour_agreement(x, y))


def _measured(tokens: Float[Tensor, "M K D"], norms: Float[Tensor, "M N"], batch_size: int) -> dict[str, Any]:
    """tokens: of each image some; norms: of each image all."""
    flat = tokens.flatten(0, 1)
    if not len(flat):
        return {}
    squares = flat.double().square().mean(0)
    largest = squares.topk(min(LARGEST_DIMENSIONS, len(squares))).values.sum() / squares.sum()
    found: dict[str, Any] = {
        "norm": norms.mean().item(),
        "outlier_share": outlier_share(norms[:, :, None]),
        "largest_share": largest.item() if squares.sum() > 0 else 0.0,
    }
    if len(flat) > 1:
        found |= {
            "effective_rank": effective_rank(flat),
            "rank_limit": min(len(flat) - 1, flat.shape[1]),
            "dead_share": dead_share(flat),
        }
    if len(tokens) > 3:
        warm_up, new = tokens[::2], tokens[1::2]
        first = warm_up[torch.from_numpy(spread(len(warm_up), batch_size))]
        found |= {
            "expected_loss": _loss_of_mean(new, warm_up, StatisticsConfig()),
            "expected_loss_without_floor": _loss_of_mean(new, first, StatisticsConfig(std_floor=0.0)),
        }
    return found


def _loss_of_mean(
    tokens: Float[Tensor, "M K D"], known: Float[Tensor, "_ K D"], cfg: StatisticsConfig
) -> float:
    """The loss that zeros get, which are the mean of standardised features.

    known: of other images, whose statistics are used, as in training: a dimension that was constant among them and
      is not any more is what makes a loss explode.
    """
    target = standardized(tokens, known, cfg)
    return token_loss(torch.zeros_like(target), target, LossConfig()).mean().item()


def standardized(
    tokens: Float[Tensor, "M K D"], known: Float[Tensor, "_ K D"], cfg: StatisticsConfig
) -> Float[Tensor, "M K D"]:
    """Tokens with the mean and std of the known ones taken out, as in training."""
    width = tokens.shape[2]
    standardizer = Standardizer(Widths(width, width), cfg)
    # As patches, with a CLS token that nothing is asked of.
    standardizer.update(standardizer.moments(Tokens(known[:, 0], known)), 1.0)
    return standardizer(Tokens(tokens[:, 0], tokens)).patches
