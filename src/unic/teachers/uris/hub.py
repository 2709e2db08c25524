"""hub:<repository>:<entry>: models through torch.hub, which RUNS the repository's Python code (hubconf.py)."""

from typing import TYPE_CHECKING

from unic.teachers import SCHEMES, Scheme

if TYPE_CHECKING:
    from unic.models.encoder import ImageEncoder


def load(text: str, options: dict) -> "ImageEncoder":
    from unic.teachers import from_hub

    return from_hub.load(text, options)


SCHEMES.add(
    "hub",
    Scheme(
        load=load,
        options=frozenset({"image_size", "layer", "trust"}),
        example="hub:facebookresearch/dinov2:dinov2_vitb14_reg?trust=1",
        what="torch.hub models in the manner of DINO and DINOv2; runs the repository's code",
    ),
)
