"""Attention of timm's ViTs on a processor: for as many tokens as an image has, two plain products and a softmax are
faster there than the fused kernel, which is made for long sequences (197 tokens in bf16: twice as fast).
"""

from typing import Any

from torch import nn


def unfuse_attention(model: nn.Module) -> int:
    """Takes the plain form of every attention that has both; gives their number. The result is the same to rounding."""
    found: list[Any] = [module for module in model.modules() if getattr(module, "fused_attn", False)]
    for module in found:
        module.fused_attn = False
    return len(found)
