"""The options of `unic visualize`; importing them does not import torch."""

from dataclasses import dataclass
from typing import Literal

from unic.core.errors import ConfigError

Kind = Literal["pca", "similarity", "attention"]
Basis = Literal["own", "shared"]


@dataclass(frozen=True, kw_only=True)
class VisualizeOptions:
    """What is drawn."""

    kinds: tuple[Kind, ...] = ()
    """What to draw; everything that the encoders have when none is named."""
    basis: Basis = "own"
    """of pca. own: components of each encoder; shared: rotated to the first encoder's, so that colours compare."""
    foreground: bool = False
    """pca of what the first component sets apart from the background."""
    patch: str = "0.5,0.5"
    """X,Y of similarity, as shares of the width and height of the square that is shown."""
    heads: bool = False
    """attention of each head, too."""
    image_size: int | None = None
    """Side of the square in pixels; each encoder's own, or what gives at least 32 x 32 patches, when left out."""

    def check(self) -> None:
        """Raises ConfigError for an option without effect, or a patch outside of the picture."""
        if self.foreground and self.basis == "shared":
            raise ConfigError(
                "--foreground colours what each encoder itself sets apart, so it cannot share colours; leave out "
                "--basis shared"
            )
        changed = {
            "--basis": ("pca", self.basis != "own"),
            "--foreground": ("pca", self.foreground),
            "--patch": ("similarity", read_patch(self.patch) != (0.5, 0.5)),
            "--heads": ("attention", self.heads),
        }
        for option, (kind, used) in changed.items():
            if used and self.kinds and kind not in self.kinds:
                raise ConfigError(f"{option} is about {kind}; add {kind} to --kinds")


def read_patch(text: str) -> tuple[float, float]:
    """X,Y as shares of width and height. Raises ConfigError for anything that is no place in a picture."""
    try:
        x, y = map(float, text.split(","))
    except ValueError:
        x = y = float("nan")
    if not (0 <= x <= 1 and 0 <= y <= 1):
        raise ConfigError(
            f"--patch {text} is no place in a picture; give X,Y from 0,0 (top left) to 1,1 (bottom right), as 0.5,0.5"
        )
    return x, y
