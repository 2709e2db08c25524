"""Which teachers teach which image. Source: UNIC, Sec. 3.4 (teacher dropping regularisation)."""

import torch
from jaxtyping import Bool, Float
from torch import Tensor


def keep_teachers(
    losses_TB: Float[Tensor, "T B"], drop_prob: float, draws_TB: Float[Tensor, "T B"]
) -> Bool[Tensor, "T B"]:
    """For each image: its hardest teacher (highest loss) always, every other one with probability 1 - drop_prob.

    draws_TB: uniform in [0, 1), handed in so that the choice is a function of the image and not of the process.
    """
    hardest_1B = losses_TB.argmax(0, keepdim=True)
    return (draws_TB >= drop_prob).scatter(0, hardest_1B, torch.ones_like(hardest_1B, dtype=torch.bool))
