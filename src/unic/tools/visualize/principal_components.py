"""Principal components of patches, and how they become colours.

Letters: N patches, M patches of the common grid, D width, K components.
"""

from dataclasses import dataclass

import torch
from jaxtyping import Float, UInt8
from torch import Tensor

# Below this part of the features' size, a spread is the rounding of float32.
_NO_SPREAD = 1e-5


@dataclass(frozen=True)
class Components:
    """The directions along which features vary most, in order; each one's sign makes its largest entry positive."""

    mean: Float[Tensor, " D"]
    directions: Float[Tensor, "D K"]
    spread: Float[Tensor, " K"]
    """Standard deviation along each direction; above 0."""

    def scores(self, features: Float[Tensor, "*N D"]) -> Float[Tensor, "*N K"]:
        """Places along the directions, in standard deviations of the features these were found in."""
        return (features.double() - self.mean) @ self.directions / self.spread


def principal_components(features: Float[Tensor, "N D"], count: int) -> Components | None:
    """The first `count` components, or as many as there are; None for features that are all the same."""
    x = features.double()
    mean = x.mean(0)
    centred = x - mean
    # Of the D x D matrix instead of the features: wide maps of large pictures are quick, too.
    variances, directions = torch.linalg.eigh(centred.T @ centred / max(len(x) - 1, 1))
    variances, directions = variances.flip(0)[:count].clamp(min=0), directions.flip(1)[:, :count]
    floor = (_NO_SPREAD * x.square().sum(1).mean().sqrt()) ** 2
    kept = variances > torch.maximum(floor, 1e-10 * variances[0])
    if not kept.any():
        return None
    variances, directions = variances[kept], directions[:, kept]
    largest = directions.gather(0, directions.abs().argmax(0, keepdim=True))
    return Components(mean, directions * largest.sign(), variances.sqrt())


def aligned(scores: Float[Tensor, "M K"], wanted: Float[Tensor, "M C"]) -> tuple[Float[Tensor, "K C"], float]:
    """The rotation R for which `scores` R comes nearest to `wanted`, and how near it comes.

    R has orthonormal columns (or rows, where K < C): orthogonal Procrustes, Schoenemann 1966. How near: the
    correlation of scores R with what was wanted, a mean over the columns; 1 for the same.
    """
    u, _, v = torch.linalg.svd(scores.T @ wanted, full_matrices=False)
    rotation = u @ v
    return rotation, correlation(scores @ rotation, wanted)


def correlation(a: Float[Tensor, "M C"], b: Float[Tensor, "M C"]) -> float:
    """Pearson's correlation of each column of `a` with that of `b`, a mean over columns; 0 for a constant column."""
    a, b = a - a.mean(0), b - b.mean(0)
    return float((torch.nn.functional.cosine_similarity(a, b, dim=0)).mean())


def bounds(scores: Float[Tensor, "N C"]) -> tuple[Float[Tensor, " C"], Float[Tensor, " C"]]:
    """What becomes black and what becomes full colour: percentiles 1 and 99, so that outliers do not pale the rest."""
    low, high = torch.quantile(scores, torch.tensor([0.01, 0.99], dtype=scores.dtype), dim=0)
    return low, high


def colours(
    scores: Float[Tensor, "*N C"], low: Float[Tensor, " C"], high: Float[Tensor, " C"]
) -> UInt8[Tensor, "*N 3"]:
    """The first three scores as red, green and blue; half of a colour for one that is constant or missing."""
    shares = ((scores - low) / (high - low).clamp(min=1e-12)).clamp(0, 1)
    shares = torch.where(high > low, shares, 0.5)[..., :3]
    missing = 3 - shares.shape[-1]
    shares = torch.nn.functional.pad(shares, (0, missing), value=0.5)
    return (shares * 255).round().to(torch.uint8)
