"""What depth is learned by: the scale-invariant loss of logarithms (Eigen et al., 2014, as AdaBins and mdet use it).

Letters: B pictures, H W pixels.
"""

import torch
from jaxtyping import Float
from torch import Tensor

_EPSILON = 1e-3  # metres, added before the logarithm
_MEAN_WEIGHT = 0.15
_WARMUP_STEPS = 100


def sig_loss(
    predicted: Float[Tensor, "B H W"], truth: Float[Tensor, "B H W"], *, step: int
) -> Float[Tensor, ""]:
    """sqrt(var(g) + 0.15 mean(g)^2) of g = log predicted - log truth, over all pixels of known depth together.

    The first 100 steps leave the variance out. Without a known pixel it is 0.
    DINOv2's configuration adds half a gradient loss; as its code stands, that compares images of the batch instead of
    pixels, and is 0 for the two images a GPU that it was trained with. It is left out here.
    """
    known = truth > 0
    count = known.sum()
    g = torch.where(known, (predicted + _EPSILON).log() - (truth + _EPSILON).log(), 0)
    mean = g.sum() / count.clamp(min=1)
    total = _MEAN_WEIGHT * mean**2
    if step >= _WARMUP_STEPS:
        total = total + torch.where(known, (g - mean) ** 2, 0).sum() / (count - 1).clamp(min=1)
    # The root of 0 has no finite slope; nothing is learned from a batch that is exactly right.
    return torch.where(total > 0, total.clamp(min=1e-12).sqrt(), 0.0 * total)
