"""timm:<model>: any model of timm, with the pretrained weights timm finds on the hub."""

from typing import TYPE_CHECKING

from unic.teachers import SCHEMES, Scheme

if TYPE_CHECKING:
    from unic.models.encoder import ImageEncoder


def load(text: str, options: dict) -> "ImageEncoder":
    from unic.teachers import from_timm

    return from_timm.load(text, options)


def outline(text: str, options: dict) -> "ImageEncoder":
    from unic.teachers import from_timm

    return from_timm.outline(text, options)


SCHEMES.add(
    "timm",
    Scheme(
        load=load,
        outline=outline,
        options=frozenset({"image_size", "layer", "cls", "pretrained"}),
        example="timm:vit_small_patch16_224.dino",
        what="any timm model: ViTs with or without class token, registers, CNNs",
    ),
)
