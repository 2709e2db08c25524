"""Patch embedding of ViTs on an accelerator: one matmul, where a general convolution changes the layout twice.

Letters: B images, H W pixels, h w grid, D width, p patch size.
"""

import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from unic.core.torch_compile import compiled
from unic.models.replace_modules import replace_modules


class MatmulPatchEmbed(nn.Module):
    """A convolution that reads every pixel once, as a matmul; weight and bias are the convolution's.

    In memory the patches' features lie together, as ViTs want them next.
    """

    def __init__(self, conv: nn.Conv2d):
        super().__init__()
        self.weight, self.bias = conv.weight, conv.bias

    def forward(self, pixels: Float[Tensor, "B C H W"]) -> Float[Tensor, "B D h w"]:
        return compiled(_matmul)(pixels, self.weight, self.bias)


def replace_patch_embed(network: nn.Module) -> int:
    """Puts a `MatmulPatchEmbed` in the place of each convolution that reads every pixel once; gives their number."""
    return replace_modules(
        network,
        lambda module: (
            MatmulPatchEmbed(module) if type(module) is nn.Conv2d and _reads_once(module) else None
        ),
    )


def _matmul(pixels: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    p, q = weight.shape[2:]
    x = pixels.unflatten(3, (-1, q)).unflatten(2, (-1, p))  # (B, C, h, p, w, q)
    x = x.permute(0, 2, 4, 1, 3, 5).flatten(3)  # (B, h, w, C p q)
    return F.linear(x, weight.flatten(1), bias).permute(0, 3, 1, 2)


def _reads_once(conv: nn.Conv2d) -> bool:
    return (
        conv.stride == conv.kernel_size
        and conv.kernel_size != (1, 1)
        and conv.padding == (0, 0)
        and conv.dilation == (1, 1)
        and conv.groups == 1
    )
