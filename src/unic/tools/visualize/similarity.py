"""Which patches an encoder finds like one of them.

Letters: B images, h w grid of patches, E width.
"""

import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from unic.core.errors import ConfigError


def similarities(maps: Float[Tensor, "B E h w"], patch: tuple[float, float]) -> Float[Tensor, "B h w"]:
    """Cosine of the angle between every patch and the one at these shares of width and height."""
    directions = F.normalize(maps.double(), dim=1)
    rows, columns = maps.shape[-2:]
    row, column = min(int(patch[1] * rows), rows - 1), min(int(patch[0] * columns), columns - 1)
    return (directions * directions[:, :, row, None, column, None]).sum(1)


def read_patch(text: str) -> tuple[float, float]:
    """X,Y as shares of width and height. Raises ConfigError for anything that is no place in a picture."""
    try:
        x, y = map(float, text.split(","))
    except ValueError:
        x = y = float("nan")
    if not (0 <= x <= 1 and 0 <= y <= 1):
        raise ConfigError(
            f"--patch {text} is no place in a picture; give X,Y from 0,0 (top left) to 1,1 (bottom right), as 0.5,0.5"
        )
    return x, y
