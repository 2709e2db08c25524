"""Does a teacher work here? Loads it strictly and looks at photographs with it: behind `unic teachers check`."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch

from unic.core.errors import WeightsError
from unic.data.crop import evaluation_view
from unic.data.decode import read_image, sample_photographs
from unic.method.types import Widths
from unic.teachers.load import load_teacher


@dataclass(frozen=True, kw_only=True)
class TeacherCheck:
    """What was found. The norms are means over images (and patches) of the length of a token."""

    name: str
    parameters: int
    image_size: int
    grid: tuple[int, int]
    widths: Widths
    cls_norm: float
    patch_norm: float
    sha256: str
    """Of weights and preprocessing, as it stands in checkpoints."""


@torch.inference_mode()
def check_teacher(reference: str, images: Sequence[Path], device: torch.device) -> TeacherCheck:
    """images: photographs; two that come with scikit-learn where there are none.

    Raises what loading raises, BadImage, and WeightsError for features that are not finite or the same for all images.
    """
    encoder = load_teacher(reference).to(device)
    photographs = [read_image(path) for path in images] or sample_photographs()
    views = torch.stack([evaluation_view(image, encoder.image_size) for image in photographs])
    tokens = encoder(views.to(device)).float()
    for what, found in (("CLS", tokens.cls), ("patch", tokens.patches)):
        if not found.isfinite().all():
            raise WeightsError(f"{encoder.name}: the {what} features of a photograph are not finite")
        if len(found) > 1 and torch.equal(found[0], found[1]):
            raise WeightsError(f"{encoder.name}: two photographs have the same {what} features")
    return TeacherCheck(
        name=encoder.name,
        parameters=sum(parameter.numel() for parameter in encoder.parameters()),
        image_size=encoder.image_size,
        grid=encoder.grid,
        widths=encoder.widths,
        cls_norm=tokens.cls.norm(dim=-1).mean().item(),
        patch_norm=tokens.patches.norm(dim=-1).mean().item(),
        sha256=encoder.content_hash(),
    )
