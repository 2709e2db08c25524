"""Where the class token looks: attention of the last block, watched while the network runs.

Fused attention keeps its weights to itself. What it is given says them: softmax(q k^T x scale + mask), with the very q
and k of the network, so that whatever a family does before (norms of q and k, rotary positions) is in them.

Letters: B images, A heads, S all tokens, d width of a head, h w grid of patches.
"""

from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

NO_ATTENTION = "no attention (CNN)"
NO_CLASS_TOKEN = "no class token"
HIDDEN = "its attention cannot be read"


class AttentionWatch(TorchFunctionMode):
    """While it is entered: notes the attention of the first token in every self-attention over a whole picture.

    Understands scaled_dot_product_attention and torch's own MultiheadAttention.
    """

    def __init__(self, batch: int):
        super().__init__()
        self.batch = batch
        self.last: Float[Tensor, "B A S"] | None = None
        """Of the last block that ran so far, a distribution over all tokens; None: there was none."""

    def __torch_function__(self, func: Callable, types: Any, args: tuple = (), kwargs: dict | None = None):
        kwargs = kwargs or {}
        if func is F.scaled_dot_product_attention:
            self._note(attention_of_first(*args, **kwargs))
        elif func is F.multi_head_attention_forward:
            return self._multi_head(func, args, kwargs)
        return func(*args, **kwargs)

    def _multi_head(self, func: Callable, args: tuple, kwargs: dict) -> tuple[Tensor, Tensor | None]:
        """Here the weights are on offer, in another way of computing the same output."""
        output, weights = func(*args, **{**kwargs, "need_weights": True, "average_attn_weights": False})
        if weights.shape[-1] == weights.shape[-2]:
            self._note(weights[..., 0, :])
        if not kwargs.get("need_weights", True):
            return output, None
        return output, weights.mean(1) if kwargs.get("average_attn_weights", True) else weights

    def _note(self, found: Tensor | None) -> None:
        # Windows and queries of a pooler are no rows of the batch.
        if found is not None and found.ndim == 3 and len(found) == self.batch:
            self.last = found.float()


def attention_of_first(
    query: Float[Tensor, "*B A S d"],
    key: Float[Tensor, "*B G T d"],
    value: Float[Tensor, "*B G T e"],
    attn_mask: Tensor | None = None,
    dropout_p: float = 0.0,
    is_causal: bool = False,
    scale: float | None = None,
    enable_gqa: bool = False,
) -> Float[Tensor, "*B A T"] | None:
    """How the first token's attention is spread, for each head, from what scaled_dot_product_attention is given.

    None where queries and keys are not the same tokens, and for text (causal).
    """
    if query.shape[-2] != key.shape[-2] or is_causal:
        return None
    if key.shape[-3] != query.shape[-3]:  # heads share keys
        key = key.repeat_interleave(query.shape[-3] // key.shape[-3], dim=-3)
    first = query[..., :1, :] * (query.shape[-1] ** -0.5 if scale is None else scale)
    logits = first @ key.transpose(-2, -1)
    if attn_mask is not None:
        mask = attn_mask[..., :1, :]
        logits = logits.masked_fill(~mask, -torch.inf) if mask.dtype == torch.bool else logits + mask
    return logits.softmax(dim=-1).squeeze(-2)


def use_fused_attention(model: nn.Module) -> None:
    """timm's blocks hand over q and k only on this way; it changes the flag of their modules, so give it a copy."""
    for module in model.modules():
        if hasattr(module, "fused_attn"):
            module.fused_attn = True  # pyright: ignore[reportArgumentType]


def attention_maps(
    last: Float[Tensor, "B A S"] | None, grid: tuple[int, int], model: nn.Module
) -> Float[Tensor, "B A h w"] | str:
    """The part of the attention that goes to patches, in their places; or the reason why there is none.

    last: what AttentionWatch noted. grid: patches down and across; class and register tokens come before them.
    """
    if last is None:
        return HIDDEN if has_attention(model) else NO_ATTENTION
    patches = grid[0] * grid[1]
    if last.shape[-1] < patches:
        return HIDDEN
    if last.shape[-1] == patches or not _has_class_token(model):
        return NO_CLASS_TOKEN
    return last[..., -patches:].unflatten(-1, grid)


def has_attention(model: nn.Module) -> bool:
    """Whether any part of it is called so."""
    return any("attention" in type(module).__name__.lower() for module in model.modules())


def _has_class_token(model: nn.Module) -> bool:
    names = ("cls_token", "class_embedding")  # the second one is that of CLIP, here and in transformers
    return any(
        isinstance(getattr(module, name, None), Tensor) for module in model.modules() for name in names
    )
