"""open_clip:<architecture>/<tag>: the image tower of a CLIP-type model; tag: one of open_clip's, or a file's path."""

from typing import TYPE_CHECKING

from unic.teachers import SCHEMES, Scheme

if TYPE_CHECKING:
    from unic.models.encoder import ImageEncoder


def load(text: str, options: dict) -> "ImageEncoder":
    from unic.teachers import from_open_clip

    return from_open_clip.load(text, options)


SCHEMES.add(
    "open_clip",
    Scheme(
        load=load,
        options=frozenset({"image_size", "layer", "pretrained"}),
        example="open_clip:ViT-H-14-quickgelu/dfn5b",
        what="the image tower of any open_clip model, by tag or file: CLIP, MetaCLIP, DFN, SigLIP, CoCa",
    ),
)
