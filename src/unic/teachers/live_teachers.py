"""Teachers that run beside the student: the TargetSource of online distillation.

Letters: B images, N patches, E width, h w grid.
"""

from collections.abc import Sequence

import torch.nn.functional as F
from torch import nn

from unic.core.errors import ConfigError
from unic.method.types import Batch, Tokens
from unic.models.encoder import ImageEncoder
from unic.teachers import short_name
from unic.teachers.load import load_teacher


class LiveTeachers(nn.Module):
    """Batch -> {teacher: Tokens on the student's patch grid}. Never trained; call it under no_grad."""

    def __init__(self, encoders: Sequence[ImageEncoder], grid: tuple[int, int]):
        super().__init__()
        self.encoders = nn.ModuleDict({encoder.name: encoder for encoder in encoders})
        self.grid = grid
        self.dims = {encoder.name: encoder.widths for encoder in encoders}
        self.eval().requires_grad_(False)

    def forward(self, batch: Batch) -> dict[str, Tokens]:
        return {name: resample(encoder(batch.images), self.grid) for name, encoder in self.encoders.items()}

    def content_hashes(self) -> dict[str, str]:
        """Which teachers these are: sha256 of weights and preprocessing by name."""
        return {name: encoder.content_hash() for name, encoder in self.encoders.items()}  # pyright: ignore[reportCallIssue]


def load_teachers(references: Sequence[str]) -> list[ImageEncoder]:
    """Loads every teacher of a recipe."""
    check_names(references)
    return [load_teacher(reference) for reference in references]


def check_names(references: Sequence[str]) -> None:
    """Raises ConfigError unless short names differ and are no words of torch: parameters and metrics carry them."""
    names = [short_name(reference) for reference in references]
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise ConfigError(
            f"two teachers are called {twice[0]}; parameters and metrics go by that name, so give one another: "
            f"?name=..."
        )
    for name in names:
        if hasattr(nn.ModuleDict, name):
            raise ConfigError(
                f"a teacher cannot be called {name!r}, which torch uses itself; give it another name: ?name=..."
            )


def resample(tokens: Tokens, grid: tuple[int, int]) -> Tokens:
    """Patches on another grid, bilinearly (antialiased where it becomes coarser); CLS is untouched."""
    side = round(tokens.patches.shape[1] ** 0.5)
    if (side, side) == grid:
        return tokens
    patches = tokens.patches.unflatten(1, (side, side)).permute(0, 3, 1, 2)  # (B, N, E) -> (B, E, h, w)
    patches = F.interpolate(patches.float(), grid, mode="bilinear", antialias=True)
    return Tokens(tokens.cls, patches.flatten(2).transpose(1, 2))
