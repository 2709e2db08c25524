"""file:<path>: weights on this machine. A student of unic says itself what it is; others need ?model=<timm model>."""

from typing import TYPE_CHECKING

from unic.teachers import SCHEMES, Scheme

if TYPE_CHECKING:
    from unic.models.encoder import ImageEncoder


def load(text: str, options: dict) -> "ImageEncoder":
    from unic.teachers import from_file

    return from_file.load(text, options)


SCHEMES.add(
    "file",
    Scheme(
        load=load,
        options=frozenset({"image_size", "layer", "cls", "model"}),
        example="file:runs/mine/encoder.safetensors",
        what="a student of unic, or weights of any timm model (?model=<timm model>)",
    ),
)
