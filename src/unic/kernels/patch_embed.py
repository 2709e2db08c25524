"""Patch embedding of ViTs on an accelerator: one product, where a general convolution changes the layout twice.

Letters: B images, H W pixels, h w grid, D width, p patch size.
"""

from functools import partial

import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from unic.core.compile_cache import compiled


def embed_by_product(model: nn.Module) -> int:
    """Makes products of the convolutions that read every pixel once; gives their number."""
    found = [module for module in model.modules() if type(module) is nn.Conv2d and _reads_once(module)]
    for conv in found:
        conv.forward = partial(product_of_patches, conv)  # pyright: ignore[reportAttributeAccessIssue]
    return len(found)


def product_of_patches(conv: nn.Conv2d, pixels: Float[Tensor, "B C H W"]) -> Float[Tensor, "B D h w"]:
    """What `conv` says; in memory the patches' features lie together, as ViTs want them next."""
    return compiled(_product)(pixels, conv.weight, conv.bias)


def _product(pixels: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
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
