"""What encoders say about some pictures: maps of their patches at a fine grid, and their attention.

Letters: B images, E width, A heads, h w grid of patches, H W pixels.
"""

import contextlib
import logging
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float
from PIL import Image
from torch import Tensor

from unic.core.errors import ConfigError, DataError, WeightsError
from unic.data.crop import evaluation_view
from unic.models.encoder import ImageEncoder
from unic.tools.visualize.attention_maps import AttentionWatch, attention_maps, use_fused_attention

log = logging.getLogger(__name__)

FINE = 32
"""Patches down and across that a map has at least, unless the user or the encoder wants otherwise."""


@dataclass(frozen=True)
class NamedEncoder:
    """An encoder, what readers know it by, and where there is one the teacher in whose space its features lie."""

    encoder: ImageEncoder
    name: str
    space: str | None = None


@dataclass(frozen=True)
class EncoderMaps:
    """Maps of the pictures' square centres, float32 on the CPU.

    side: of the square, in pixels, as the encoder saw it.
    attention: of the class token in the last block, over patches; the reason where there is none, or "".
    """

    name: str
    space: str | None
    side: int
    maps: Float[Tensor, "B E h w"]
    attention: Float[Tensor, "B A h w"] | str

    @property
    def size(self) -> str:
        """For people."""
        rows, columns = self.maps.shape[-2:]
        return f"{columns} x {rows} patches at {self.side} px"


def extract_maps(
    shown: NamedEncoder,
    pictures: Sequence[Image.Image],
    *,
    image_size: int | None,
    attention: bool,
    device: torch.device,
) -> EncoderMaps:
    """Runs the encoder on each picture: short side resized, square at the centre.

    image_size: side of the square in pixels, brought down to whole patches; None: the encoder's own, or larger where
      that has fewer than FINE patches a side and the encoder can be resized.
    """
    encoder = shown.encoder.to(device)
    p = encoder.stride
    small = next((picture for picture in pictures if min(picture.size) < p), None)
    if small is not None:
        raise DataError(
            f"a picture of {small.width} x {small.height} pixels is smaller than one patch of {shown.name} ({p} "
            f"pixels); give a larger one"
        )
    if image_size is not None:
        if image_size < p:
            raise ConfigError(
                f"image size {image_size} is smaller than one patch of {shown.name}; give at least {p}"
            )
        return _look(shown, pictures, image_size // p * p, attention, device)
    own = max(encoder.image_size // p, 1) * p
    fine = max(own, FINE * p)
    try:
        return _look(shown, pictures, fine, attention, device)
    except ConfigError as error:
        if fine == own:
            raise
        log.info("%s is shown at its own size: %s", shown.name, error)
        return _look(shown, pictures, own, attention, device)


@torch.inference_mode()
def _look(
    shown: NamedEncoder, pictures: Sequence[Image.Image], side: int, attention: bool, device: torch.device
) -> EncoderMaps:
    sized = shown.encoder.at_size(side, side).eval()
    use_fused_attention(sized)  # at_size made a copy of the modules
    maps, watched = [], []
    for picture in pictures:  # one at a time: fine maps of large models take memory
        pixels = sized.normalize(evaluation_view(picture, side)[None].to(device))
        watch = AttentionWatch(len(pixels))
        with watch if attention else contextlib.nullcontext():
            found = sized.maps(pixels)[0].patches.float().cpu()
        if not found.isfinite().all():
            raise WeightsError(f"{shown.name}: the patch features of a picture are not finite")
        maps.append(found)
        watched.append(
            attention_maps(watch.last, (found.shape[-2], found.shape[-1]), sized) if attention else ""
        )
    reasons = [found for found in watched if isinstance(found, str)]
    everywhere = reasons[0] if reasons else torch.cat([found.cpu() for found in watched])
    return EncoderMaps(shown.name, shown.space, side, torch.cat(maps), everywhere)
