"""Pictures to look at: image, truth and prediction side by side.

Letters: H W pixels.
"""

import contextlib
import logging
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
from jaxtyping import Float, UInt8
from PIL import Image

from unic.evals.dense.config import DenseConfig

log = logging.getLogger(__name__)

_GAP = 8
_NOTHING = (0, 0, 0)


def panels_of(config: DenseConfig, folder: Path | None, num_images: int) -> tuple[Path, set[int]]:
    """Where panels go, and of which test images: evenly spread ones; none where there is no place for them.

    folder: the head's in the cache, beside which they go when the user names no place.
    """
    place = config.panels_to or (folder and folder.with_name(f"{folder.name}-panels"))
    if place is None or not config.panels:
        return Path(), set()
    return place, {int(i) for i in np.linspace(0, num_images - 1, min(config.panels, num_images))}


def coloured(
    classes: UInt8[np.ndarray, "H W"], palette: Sequence[tuple[int, int, int]]
) -> UInt8[np.ndarray, "H W 3"]:
    """Each pixel in the colour of its class; black for a number without one."""
    table = np.full((256, 3), _NOTHING, dtype=np.uint8)
    table[: len(palette)] = palette
    return table[classes]


def in_colours_of_distance(
    metres: Float[np.ndarray, "H W"], *, farthest: float
) -> UInt8[np.ndarray, "H W 3"]:
    """Near is bright, far is dark; black where the depth is unknown (0)."""
    import matplotlib

    share = np.clip(metres / farthest, 0, 1)
    colours = matplotlib.colormaps["magma_r"](share)[..., :3]
    return np.where((metres > 0)[..., None], colours * 255, 0).astype(np.uint8)


def write_panel(path: Path, pictures: Sequence[UInt8[np.ndarray, "H W 3"]]) -> None:
    """Pictures of one size, side by side, as a PNG."""
    height = pictures[0].shape[0]
    gap = np.full((height, _GAP, 3), 255, dtype=np.uint8)
    row = [part for picture in pictures for part in (gap, picture)][1:]
    with written_or_warned(path):
        Image.fromarray(np.concatenate(row, axis=1)).save(path)


@contextlib.contextmanager
def written_or_warned(path: Path) -> Iterator[Path]:
    """Makes the file's folder for a block that writes it; what cannot be written is a warning."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        yield path
    except OSError as error:
        log.warning("%s is not written: %s", path, error)
