"""Frozen teachers, prepared once for what they do a million times."""

import torch
from torch import nn

# Layers whose weights autocast rounds at every use: it remembers roundings of trained weights only.
_ROUNDED = (nn.Linear, nn.Conv1d, nn.Conv2d)


def round_weights(model: nn.Module, dtype: torch.dtype) -> None:
    """Rounds the weights of products and convolutions once; what the model says under autocast to `dtype` stays the
    same. For frozen models: the unrounded weights are gone, and with them the model's fingerprint.
    """
    for module in model.modules():
        if isinstance(module, _ROUNDED):
            module.to(dtype)
