"""hf:<repository or folder>: vision backbones of transformers, without running code of the repository."""

from typing import TYPE_CHECKING

from unic.teachers import SCHEMES, Scheme

if TYPE_CHECKING:
    from unic.models.encoder import ImageEncoder


def load(text: str, options: dict) -> "ImageEncoder":
    from unic.teachers import from_hf

    return from_hf.load(text, options)


SCHEMES.add(
    "hf",
    Scheme(
        load=load,
        options=frozenset({"image_size", "layer", "cls"}),
        example="hf:facebook/dinov2-with-registers-base",
        what="vision backbones of transformers by hub name or folder: DINOv2, DINOv3, ViT, CLIP, SigLIP, CNNs",
    ),
)
