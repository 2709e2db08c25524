"""How a head is learned from crops: the settings that segmentation and depth share."""

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from unic.core.errors import ConfigError

if TYPE_CHECKING:
    from unic.method.types import Encoder

Bits = Literal["fp8", "bf16"]


@dataclass(frozen=True, kw_only=True)
class DenseConfig:
    """How a head is learned; each task has its defaults. Results name what differs from the published protocol."""

    mode: Literal["fast", "exact"] = "fast"
    """exact: new crops at every step, as published. fast: features of `views` crops of each image, computed once."""
    steps: int
    batch: int
    """Crops a step."""
    lr: float
    views: int = 8
    """Crops of each image that `fast` keeps."""
    bits: Bits = "fp8"
    """Number format of the features that `fast` keeps; bf16 takes twice the disk."""
    seed: int = 0
    """Of the crops, their order, and the head before it has learned."""
    at_once: int = 8
    """Crops or windows encoded at a time, where only time and memory depend on it."""
    panels: int = 4
    """Test images to show beside their truth and prediction, as PNG files."""
    panels_to: Path | None = None
    """Folder for them; beside the head in the cache when not given."""

    def __post_init__(self) -> None:
        for name in ("steps", "batch", "views", "at_once"):
            if getattr(self, name) < 1:
                raise ConfigError(f"{name} {getattr(self, name)} of a dense evaluation: expected 1 or more")
        if not self.lr > 0:
            raise ConfigError(f"lr {self.lr} of a dense evaluation: expected more than 0")
        if self.panels < 0:
            raise ConfigError(f"panels {self.panels} of a dense evaluation: expected 0 or more")


def gives_maps(encoder: "Encoder") -> bool:
    """Whether a head can be learned on it."""
    from unic.method.types import DenseEncoder

    return isinstance(encoder, DenseEncoder)
