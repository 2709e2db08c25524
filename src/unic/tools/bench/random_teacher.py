"""Teachers for measuring: those whose weights are here, and stand-ins of the same architecture for the others.

How long a product takes does not depend on the numbers, as long as they are ordinary ones.
"""

from pathlib import Path

import torch
from torch import nn

from unic.core.errors import ConfigError
from unic.core.keyed_random import seeded_torch
from unic.models.encoder import ImageEncoder
from unic.teachers import missing_weights, parse_reference
from unic.teachers.load import load_teacher, outline_teacher

PUBLISHED, RANDOM = "its weights", "random weights"


def load_or_randomize(reference: str) -> tuple[ImageEncoder, str]:
    """The teacher, and which weights it has. Raises ConfigError where only a download would tell its shapes."""
    base, options = parse_reference(reference)
    scheme, colon, rest = base.partition(":")
    if not colon:
        if missing_weights(reference) is None:
            try:
                return load_teacher(reference), PUBLISHED
            except ImportError:  # weights that come as a package, which is not installed
                pass
        return _stand_in(reference), RANDOM
    if scheme == "timm" and options.get("pretrained", True):
        return _stand_in(reference), RANDOM
    if scheme == "hub" and not Path(rest.rpartition(":")[0]).expanduser().is_dir():
        raise ConfigError(
            f"{reference}: torch.hub would download its code, and unic bench downloads nothing; put the repository in "
            f"a folder and name that: hub:<folder>:<entry>"
        )
    return load_teacher(reference), RANDOM if options.get("pretrained") == 0 else PUBLISHED


def _stand_in(reference: str) -> ImageEncoder:
    encoder = outline_teacher(reference)
    if encoder is None:
        raise ConfigError(f"{reference}: its shapes are not known without its weights; fetch them first")
    encoder = encoder.to_empty(device="cpu")
    with seeded_torch(0, "stand-in teacher"), torch.no_grad():
        _fill(encoder)
    return encoder


def _fill(encoder: nn.Module) -> None:
    """Weights that keep the size of what passes through: neither denormal nor infinite after many layers."""
    for name, parameter in encoder.named_parameters():
        if parameter.ndim > 1:
            parameter.normal_(0.0, parameter[0].numel() ** -0.5)
        else:
            parameter.fill_(0.0 if name.endswith("bias") else 1.0)
    for name, buffer in encoder.named_buffers():
        buffer.fill_(1 if name.endswith(("std", "running_var")) else 0)
