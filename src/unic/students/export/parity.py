"""Is the exported encoder ours? Both look at the same photographs, and every feature is compared.

Letters: B images, N patches, D width, H W pixels.
"""

import importlib.metadata
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from jaxtyping import Float, UInt8
from torch import Tensor

from unic.core.errors import WeightsError
from unic.data.crop import evaluation_view
from unic.data.decode import SAMPLE_NAMES, read_image, sample_photographs
from unic.method.types import Tokens
from unic.models.encoder import ImageEncoder

# An exported encoder: float images in [0, 1], already at its image size, to tokens.
Read = Callable[[Float[Tensor, "B 3 H W"]], Tokens]

_BATCH = 16


@dataclass(frozen=True, kw_only=True)
class Difference:
    """Absolute, in the unit of the features; over all images and features."""

    max: float
    mean: float


@dataclass(frozen=True, kw_only=True)
class Parity:
    """How far an exported encoder is from ours. Written to parity.json."""

    library: str
    version: str
    images: tuple[str, ...]
    tolerance: float
    precision: str = "fp32"
    cls: Difference
    patches: Difference

    @property
    def worst(self) -> float:
        return max(self.cls.max, self.patches.max)


@dataclass(frozen=True)
class Photos:
    """What is compared on. names: of the files, without their folders: they are published with the model."""

    names: tuple[str, ...]
    pixels: UInt8[Tensor, "B 3 S S"]


def read_photos(paths: Sequence[Path], image_size: int) -> Photos:
    """The two photographs that come with scikit-learn, and the given ones, cut to `image_size` pixels."""
    names = [*(f"{name} (scikit-learn)" for name in SAMPLE_NAMES), *(path.name for path in paths)]
    images = [*sample_photographs(), *map(read_image, paths)]
    return Photos(tuple(names), torch.stack([evaluation_view(image, image_size) for image in images]))


@torch.inference_mode()
def compare(
    encoder: ImageEncoder,
    read: Read,
    photos: Photos,
    *,
    library: str,
    tolerance: float,
) -> Parity:
    """Raises WeightsError when the two differ by more than `tolerance`, in shape, or are not finite."""
    ours, theirs = [], []
    for batch in photos.pixels.split(_BATCH):
        ours.append(encoder(batch))
        theirs.append(read(batch.float() / 255))
    differences = {}
    for kind in ("cls", "patches"):
        expected = torch.cat([getattr(tokens, kind) for tokens in ours])
        got = torch.cat([getattr(tokens, kind) for tokens in theirs])
        differences[kind] = _difference(
            expected, got, f"{encoder.name}, {kind} features as {library} reads it"
        )
    parity = Parity(
        library=library,
        version=importlib.metadata.version(library),
        images=photos.names,
        tolerance=tolerance,
        **differences,
    )
    if parity.worst > tolerance:
        raise WeightsError(
            f"{encoder.name}: the features that {library} computes from the exported files differ by up to "
            f"{parity.worst:.2g} from ours, more than the tolerance of {tolerance:g}; nothing was written "
            f"(give a larger --tolerance if that is near enough)"
        )
    return parity


def _difference(expected: Tensor, got: Tensor, what: str) -> Difference:
    if expected.shape != got.shape:
        raise WeightsError(
            f"{what}: their shape is {tuple(got.shape)}, expected {tuple(expected.shape)}; nothing was written"
        )
    for tensor, whose in ((expected, "ours"), (got, "the exported ones")):
        if not torch.isfinite(tensor).all():
            raise WeightsError(f"{what}: {whose} are infinite or undefined; nothing was written")
    distance = (got - expected).abs()
    return Difference(max=distance.max().item(), mean=distance.mean().item())
