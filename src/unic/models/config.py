"""Settings of encoders, of the student and of its ladder; importing them does not import torch."""

from dataclasses import dataclass, fields
from typing import Literal

from unic.core.errors import ConfigError

IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)

ENCODER_FILE = "encoder.safetensors"
"""The released file of a run: its encoder alone."""

ClsRule = Literal["auto", "token", "pooled"]
"""Which vector of a network is its CLS; auto: the class token where there is one, else what the network pools."""


@dataclass(frozen=True)
class Resampling:
    """How a position grid changes its size: bicubic, and then families differ.

    antialias: low-pass when the grid shrinks.
    offset: added to the number of rows and columns before the scale is computed; DINO, iBOT and the first DINOv2 models
      add 0.1 against a rounding error, and so sample at slightly other places (facebookresearch/dino
      vision_transformer.py, dinov2 configs: interpolate_offset).
    """

    antialias: bool = True
    offset: float = 0.0


@dataclass(frozen=True, kw_only=True)
class StudentConfig:
    """A timm ViT by name, or by its dimensions with model=None."""

    model: str | None = "vit_base_patch16_224"
    """Name of a timm ViT with a class token; None: build one from width, depth, heads, patch_size, registers."""
    image_size: int = 224
    """Pixels a side."""
    width: int | None = None
    depth: int | None = None
    heads: int | None = None
    patch_size: int | None = None
    registers: int | None = None
    """Register tokens; None: none."""
    drop_path: float = 0.1
    """Probability of skipping a residual branch of the last block, rising linearly from 0 at the first."""

    def __post_init__(self):
        dimensions = ("width", "depth", "heads", "patch_size")
        given = [name for name in (*dimensions, "registers") if getattr(self, name) is not None]
        if self.model is not None and given:
            raise ConfigError(
                f"student.{given[0]} has no effect beside student.model={self.model!r}; pass --student.model None to "
                f"build the ViT from its dimensions, or for the named one "
                + " ".join(f"--student.{name.replace('_', '-')} None" for name in given)
            )
        missing = [name for name in dimensions if getattr(self, name) is None]
        if self.model is None and missing:
            raise ConfigError(f"student.{missing[0]} is missing; a ViT needs {', '.join(dimensions)}")
        for field in fields(self):
            value = getattr(self, field.name)
            least = 0 if field.name == "registers" else 1
            if isinstance(value, int) and value < least:
                raise ConfigError(f"student.{field.name} must be at least {least}, got {value}")
        if self.width is not None and self.heads is not None and self.width % self.heads:
            raise ConfigError(f"student.width {self.width} is not a multiple of student.heads {self.heads}")
        if self.patch_size is not None and self.image_size % self.patch_size:
            size, p = self.image_size, self.patch_size
            raise ConfigError(
                f"student.image_size {size} is not a multiple of student.patch_size {p}; "
                f"nearest: {max(size // p, 1) * p} or {(size // p + 1) * p}"
            )
        if not 0 <= self.drop_path < 1:
            raise ConfigError(f"student.drop_path must be in [0, 1), got {self.drop_path}")


@dataclass(frozen=True, kw_only=True)
class LadderConfig:
    """Which blocks the projectors read, and how wide they are."""

    projector: Literal["ladder", "mlp", "linear"] = "ladder"
    """ladder: an MLP on every block, summed; mlp: one MLP on the last block; linear: one matrix on the last block."""
    blocks: tuple[int, ...] | None = None
    """Blocks the ladder reads, from 0; negative ones count from the end. None: all of them."""
    hidden: int = 768
    """Hidden width of the MLPs below the last block."""
    last_hidden: int = 3072
    """Hidden width of the MLP on the last block."""

    def __post_init__(self):
        if self.hidden < 1 or self.last_hidden < 1:
            raise ConfigError(f"ladder widths must be positive, got {self.hidden} and {self.last_hidden}")
        if self.blocks is not None and self.projector != "ladder":
            raise ConfigError(
                f"ladder.blocks has no effect on projector={self.projector!r}, which reads the last block"
            )
        if self.blocks == ():
            raise ConfigError("ladder.blocks is empty; name at least one block, or None for all")
