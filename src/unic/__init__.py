"""unic: distil several frozen vision encoders into one ViT, and measure the result."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

from unic.version import __version__

if TYPE_CHECKING:
    from unic.method.types import Encoder, Tokens

__all__ = ["Tokens", "__version__", "load"]


def load(reference: str | Path, head: str | None = None) -> "Encoder":
    """An encoder by name, URI, run folder or file; call it on uint8 images (B, 3, H, W) to get Tokens.

    head: a teacher of the student; the features are then in that teacher's space.

    >>> encoder = unic.load("runs/demo")
    >>> tokens = encoder(images)  # tokens.cls (B, D), tokens.patches (B, N, D)
    """
    from unic.students.load_encoder import load as load_encoder

    return load_encoder(reference, head)


def __getattr__(name: str) -> Any:
    # torch is imported when it is first needed: `import unic` and `unic --help` stay quick.
    if name == "Tokens":
        from unic.method.types import Tokens

        return Tokens
    raise AttributeError(f"module 'unic' has no attribute {name!r}")
