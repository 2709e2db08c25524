"""How far the student's tokens are from a teacher's: cosine and smooth L1, averaged over CLS and patches.

Letters: B images, N patches, E width of a teacher, T teachers.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from unic.method.config import LossConfig
from unic.method.types import Tokens


@dataclass(frozen=True)
class TokenLosses:
    """Losses of each teacher and image: of the CLS token, of the patches, and of the image (`total_TB`)."""

    cls_TB: Float[Tensor, "T B"]
    patches_TB: Float[Tensor, "T B"]
    total_TB: Float[Tensor, "T B"]

    def detach(self) -> "TokenLosses":
        return TokenLosses(self.cls_TB.detach(), self.patches_TB.detach(), self.total_TB.detach())


def token_loss(
    output: Float[Tensor, "*B E"], target: Float[Tensor, "*B E"], cfg: LossConfig
) -> Float[Tensor, "*B"]:
    """Loss of each token, in float32 whatever the inputs' precision; smooth L1 is averaged over the E features."""
    output, target = output.float(), target.float()
    cosine = 1 - F.cosine_similarity(output, target, dim=-1)
    smooth_l1 = F.smooth_l1_loss(output, target, beta=1.0, reduction="none").mean(-1)
    return cfg.cosine * cosine + cfg.smooth_l1 * smooth_l1


TokenLoss = Callable[[Tensor, Tensor, LossConfig], Tensor]
"""A function like `token_loss`."""


def teacher_losses(
    outputs: Mapping[str, Tokens],
    targets: Mapping[str, Tokens],
    cfg: LossConfig,
    token_loss: TokenLoss = token_loss,
) -> TokenLosses:
    """Losses (T, B), teachers in the order of `targets`; patches averaged over the grid, then with the CLS token.

    token_loss: a faster form of it may take its place.
    """
    cls_TB = torch.stack([token_loss(outputs[name].cls, target.cls, cfg) for name, target in targets.items()])
    patches_TB = torch.stack(
        [token_loss(outputs[name].patches, target.patches, cfg).mean(-1) for name, target in targets.items()]
    )
    compared = [part for part, used in ((cls_TB, cfg.cls), (patches_TB, cfg.patches)) if used]
    return TokenLosses(cls_TB, patches_TB, torch.stack(compared).mean(0))
