"""The loss of one pair of vectors in float64 NumPy, straight from its definition."""

import numpy as np
from torch import Tensor

from unic.method.config import LossConfig


def reference_token_loss(output: Tensor, target: Tensor, cfg: LossConfig) -> float:
    """UNIC, Sec. 3.3."""
    x, t = output.double().numpy(), target.double().numpy()
    cosine = x @ t / (np.sqrt(x @ x) * np.sqrt(t @ t))
    distance = np.abs(x - t)
    smooth_l1 = np.where(distance < 1, 0.5 * distance**2, distance - 0.5).mean()
    return cfg.cosine * (1 - cosine) + cfg.smooth_l1 * smooth_l1
