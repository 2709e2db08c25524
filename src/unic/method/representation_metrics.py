"""What features are like, and how alike two sets of features are: single numbers, in float64 inside.

Letters: B images, N rows or tokens, D E widths.
"""

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int64
from torch import Tensor

_ROUNDING = torch.finfo(torch.float32).eps
"""Spread of a feature, relative to its mean, that is no more than the rounding of float32."""

_SIGMA_OF_MAD = 1.4826
"""Standard deviation of a normal distribution over its median absolute deviation."""


def effective_rank(features: Float[Tensor, "N D"]) -> float:
    """In how many directions features spread: 1 for a line, at most min(N - 1, D), 0 for constant features.

    The exponential of the entropy of the normalised singular values of the centred features.
    Source: Roy & Vetterli, "The effective rank" (EUSIPCO 2007).
    """
    centred = _centred(features)
    gram = centred @ centred.T if len(centred) < centred.shape[1] else centred.T @ centred
    singular = torch.linalg.eigvalsh(gram).clamp(min=0).sqrt()
    if centred.norm() <= _ROUNDING * features.double().norm():
        return 0.0
    shares = singular / singular.sum()
    return torch.special.entr(shares).sum().exp().item()


def dead_share(features: Float[Tensor, "N D"], floor: float = 0.05) -> float:
    """Share of dimensions that hardly vary, in [0, 1]: std 0, or below `floor` times the median std of all."""
    std = _centred(features).square().mean(0).sqrt()
    constant = std <= _ROUNDING * features.double().mean(0).abs()
    return (constant | (std < floor * std.median())).double().mean().item()


def outlier_share(tokens: Float[Tensor, "B N D"]) -> float:
    """Share of tokens that are far longer than the others, in [0, 1].

    A token counts when its norm is more than twice the median of all tokens' norms, and more than 4 standard
    deviations above it (estimated by the median absolute deviation, which outliers do not move).
    Source of the phenomenon: Darcet et al., "Vision transformers need registers" (ICLR 2024).
    """
    norms = tokens.double().norm(dim=-1).flatten()
    median = norms.median()
    sigma = _SIGMA_OF_MAD * (norms - median).abs().median()
    return ((norms > median + 4 * sigma) & (norms > 2 * median)).double().mean().item()


def linear_cka(x: Float[Tensor, "N D"], y: Float[Tensor, "N E"]) -> float:
    """How alike two sets of features of the same N things are, in [0, 1]; 1 up to rotation and scale, 0 for constants.

    With few things (N of the order of a width), unrelated features are well above 0.
    Source: Kornblith et al., "Similarity of neural network representations revisited" (ICML 2019), linear HSIC.
    """
    x, y = _centred(x), _centred(y)
    # Whichever matrices are smaller: those of things, or of features.
    if len(x) < max(x.shape[1], y.shape[1]):
        of_x, of_y = x @ x.T, y @ y.T
        common, own = (of_x * of_y).sum(), of_x.norm() * of_y.norm()
    else:
        common, own = (y.T @ x).square().sum(), (x.T @ x).norm() * (y.T @ y).norm()
    return (common / own).clamp(0, 1).item() if own > 0 else 0.0


def neighbour_agreement(x: Float[Tensor, "N D"], y: Float[Tensor, "N E"], k: int = 10) -> float:
    """Mean share of the k nearest neighbours, by cosine and without itself, that a thing has in x and in y both.

    In [0, 1]; chance is k / (N - 1). k is at most N - 1.
    """
    assert len(x) > 1, "one row has no neighbours"
    k = min(k, len(x) - 1)
    common = _neighbours(x, k)[:, :, None] == _neighbours(y, k)[:, None, :]  # (N, k of x, k of y)
    return common.any(-1).double().mean().item()


def explained_variance(prediction: Float[Tensor, "N D"], target: Float[Tensor, "N D"]) -> float:
    """Share of the target's variance that a prediction explains, over all dimensions: 1 - SSE / SST; may be negative.

    0 is what predicting the mean gets. For a constant target: 1 when it is met exactly, else 0.
    """
    missed = (target.double() - prediction.double()).square().sum()
    total = _centred(target).square().sum()
    if total > 0:
        return (1 - missed / total).item()
    return 1.0 if missed == 0 else 0.0


def _centred(features: Float[Tensor, "N D"]) -> Float[Tensor, "N D"]:
    features = features.double()
    return features - features.mean(0)


def _neighbours(features: Float[Tensor, "N D"], k: int) -> Int64[Tensor, "N k"]:
    unit = F.normalize(features.double(), dim=-1)
    similarity = (unit @ unit.T).fill_diagonal_(-torch.inf)
    return similarity.topk(k).indices
