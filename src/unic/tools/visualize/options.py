"""The options of `unic visualize`; importing them does not import torch."""

from dataclasses import dataclass
from typing import Literal

from unic.core.errors import ConfigError

Kind = Literal["pca", "similarity", "attention"]
Basis = Literal["own", "shared"]


@dataclass(frozen=True, kw_only=True)
class VisualizeOptions:
    """What is drawn.

    kinds: none stands for pca and similarity, and attention where an encoder has it.
    patch: of similarity, as shares of width and height of the square that is shown.
    image_size: in pixels; None: each encoder's own, or what gives it a fine map.
    heads: each attention head by itself, too.
    """

    kinds: tuple[Kind, ...] = ()
    basis: Basis = "own"
    foreground: bool = False
    patch: tuple[float, float] = (0.5, 0.5)
    image_size: int | None = None
    heads: bool = False

    def __post_init__(self) -> None:
        if self.foreground and self.basis == "shared":
            raise ConfigError(
                "--foreground colours what each encoder itself sets apart, so it cannot share colours; leave out "
                "--basis shared"
            )
        changed = {
            "--basis": ("pca", self.basis != "own"),
            "--foreground": ("pca", self.foreground),
            "--patch": ("similarity", self.patch != (0.5, 0.5)),
            "--heads": ("attention", self.heads),
        }
        for option, (kind, used) in changed.items():
            if used and self.kinds and kind not in self.kinds:
                raise ConfigError(f"{option} is about {kind}; add {kind} to --kinds")
