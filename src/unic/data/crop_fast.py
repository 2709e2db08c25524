"""From a file to a training view by shorter ways; the definition is `training_view(read_image(path), ...)`.

What differs: torch's resize rounds its weights to 16 bits, and goes along rows first where Pillow may begin with
columns, so that values beyond white or black are cut off at another time. On photographs that is 0.03 of 255 levels
on average, less than 0.5 in any view. Views of shrunk JPEGs differ by 1 to 2 levels on average, 6 in the worst.
Where the time goes: reading the bits of the file is most of decoding, and neither a smaller crop nor a smaller
scale spares it. Shrinking gains little at ImageNet's size, 1.6 times at 3 megapixels and 2.4 at 12.
Letters: S side of the view in pixels, h w of the crop.
"""

from collections.abc import Sequence
from functools import partial
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import UInt8
from PIL import Image
from torch import Tensor

from unic.data.config import ViewConfig
from unic.data.crop import crop_box
from unic.data.decode import open_image, to_rgb

# A decoder of JPEG can shrink by these on its own: it leaves out the high frequencies.
_SHRINKS = (8, 4, 2)


def read_view(path: str | Path, draws: Sequence[float], cfg: ViewConfig) -> UInt8[Tensor, "3 S S"]:
    """The view of a file. The same draws cut the same crop as for `cut`, and the same files raise BadImage."""
    size = (cfg.image_size, cfg.image_size)
    crop = open_image(path, partial(_crop, draws, cfg))
    view = torch.from_numpy(np.array(crop)).permute(2, 0, 1)  # (h, w, 3) -> (3, h, w)
    if crop.size != size:
        # The colours of a pixel lie together here: so torch resizes by vector instructions.
        view = F.interpolate(view[None], size, mode="bicubic", antialias=True)[0]
    return view.flip(2) if draws[-1] < cfg.flip else view


def shrink_of(width: int, height: int, image_size: int) -> int:
    """How far a crop can be shrunk and still be no smaller than its view: nothing is enlarged for it."""
    return next((shrink for shrink in _SHRINKS if min(width, height) >= shrink * image_size), 1)


def _crop(draws: Sequence[float], cfg: ViewConfig, image: Image.Image) -> Image.Image:
    """The crop, in its own size or, from a shrunk image, in that of the view."""
    left, top, width, height = crop_box(*image.size, draws[:-1], cfg)
    shrinks = cfg.pixels == "shrunk" and image.format == "JPEG"
    shrink = shrink_of(width, height, cfg.image_size) if shrinks else 1
    if shrink > 1:
        image.draft(None, (image.width // shrink, image.height // shrink))
        # Only Pillow's resize takes a box with fractions of pixels.
        box = (left / shrink, top / shrink, (left + width) / shrink, (top + height) / shrink)
        return to_rgb(image).resize((cfg.image_size, cfg.image_size), Image.Resampling.BICUBIC, box)
    whole = image if image.mode == "RGB" else to_rgb(image)  # to_rgb would copy every pixel
    return whole.crop((left, top, left + width, top + height))
