"""Settings of the data: which images, and how views of them are cropped and recoloured."""

import math
from dataclasses import dataclass, field
from typing import ClassVar, Literal

from unic.core.errors import ConfigError


@dataclass(frozen=True, kw_only=True)
class ViewConfig:
    """How a training view is cropped and recoloured. Source of the defaults: UNIC's published recipe."""

    image_size: int = 224
    scale: tuple[float, float] = (0.08, 1.0)
    """Smallest and largest area of the crop, as a share of the image."""
    ratio: tuple[float, float] = (3 / 4, 4 / 3)
    """Smallest and largest width / height of the crop."""
    flip: float = 0.5
    """Probability of a left-right flip."""
    jitter: tuple[float, float, float, float] = (0.4, 0.4, 0.2, 0.1)
    """Brightness, contrast, saturation: by a factor within 1 +- this. Hue: by up to this part of a turn."""
    jitter_prob: float = 0.8
    grayscale_prob: float = 0.2
    blur_prob: float = 0.2
    blur_kernel: int = 9
    """Side of the Gaussian's window, in pixels of the view."""
    blur_sigma: tuple[float, float] = (0.1, 5.0)
    """Smallest and largest standard deviation of the Gaussian, in pixels of the view."""
    solarize_prob: float = 0.2
    solarize_threshold: float = 0.5
    """Values from here to 1 (white) are inverted."""
    pixels: Literal["exact", "fast", "shrunk"] = "exact"
    """exact: the definition. fast: the same crops and colours by shorter ways, 0.03 of 255 levels off on average; for
    views from 64 pixels. shrunk: as fast, but JPEGs far larger than the view are decoded at 1/2, 1/4 or 1/8: 1 to 2
    levels off."""

    OLD_VALUES: ClassVar = {"pixels": {"plain": "exact"}}

    def __post_init__(self) -> None:
        if self.image_size < 1:
            raise ConfigError(f"image_size is {self.image_size}; wanted at least 1 pixel")
        for name in (
            "flip",
            "jitter_prob",
            "grayscale_prob",
            "blur_prob",
            "solarize_prob",
            "solarize_threshold",
        ):
            _require(name, getattr(self, name), 0 <= getattr(self, name) <= 1, "a number from 0 to 1")
        _require("scale", self.scale, 0 < self.scale[0] <= self.scale[1] <= 1, "0 < smallest <= largest <= 1")
        _require(
            "ratio", self.ratio, 0 < self.ratio[0] <= self.ratio[1] < math.inf, "0 < smallest <= largest"
        )
        jitter_fits = all(0 <= s < math.inf for s in self.jitter) and self.jitter[3] <= 0.5
        _require("jitter", self.jitter, jitter_fits, "four numbers from 0, the last (hue) at most 0.5")
        sigma_fits = 0 < self.blur_sigma[0] <= self.blur_sigma[1] < math.inf
        _require("blur_sigma", self.blur_sigma, sigma_fits, "0 < smallest <= largest")
        _require(
            "blur_kernel",
            self.blur_kernel,
            self.blur_kernel > 0 and self.blur_kernel % 2 == 1,
            "an odd number",
        )
        if self.blur_prob > 0 and self.blur_kernel // 2 >= self.image_size:
            raise ConfigError(
                f"blur_kernel {self.blur_kernel} does not fit into views of {self.image_size} px; "
                f"wanted at most {2 * self.image_size - 1}, or blur_prob 0"
            )


def _require(name: str, value: object, holds: bool, wanted: str) -> None:
    if not holds:
        raise ConfigError(f"{name} is {value}; wanted {wanted}")


@dataclass(frozen=True, kw_only=True)
class DataConfig:
    """Which images the student learns from, and how they are cropped."""

    root: tuple[str, ...] = ()
    """Folders of images (with subfolders), or text files that list images; several are mixed."""
    weights: tuple[float, ...] = ()
    """Share of each root in an epoch, in any unit; empty: every image once an epoch."""
    val_root: tuple[str, ...] = ()
    """Images for the validation loss; folders or lists like `root`."""
    views: ViewConfig = field(default_factory=ViewConfig)
    max_bad: float = 0.01
    """Share of unreadable images above which the run stops; up to there, others take their place."""

    def __post_init__(self) -> None:
        if self.weights and len(self.weights) != len(self.root):
            raise ConfigError(
                f"{len(self.weights)} weights for {len(self.root)} roots; wanted one a root, or none"
            )
        if not all(0 <= weight < math.inf for weight in self.weights) or (
            self.weights and not sum(self.weights)
        ):
            raise ConfigError(f"weights are {self.weights}; wanted numbers from 0, not all 0")
        if not 0 <= self.max_bad <= 1:
            raise ConfigError(f"max_bad is {self.max_bad}; wanted a share from 0 to 1")
