"""UNIC's own released students (Sariyildiz et al., ECCV 2024), to compare with or to learn from.

Their ladder stays in the file: `unic import` keeps it, and so gives the student in its teachers' feature spaces.
"""

from typing import TYPE_CHECKING

from unic.models.config import Resampling
from unic.models.state_keys import below
from unic.teachers import TEACHERS, TeacherSpec
from unic.teachers.fetch import WeightsFile

if TYPE_CHECKING:
    from torch import Tensor


def convert(state: "dict[str, Tensor]") -> "dict[str, Tensor]":
    """The encoder of a published student, under timm's names."""
    from unic.models.dinov2_format import dinov2_to_timm

    return dinov2_to_timm(below("encoder.", state))


for name, model, file, parameters in (
    ("naver_unic_vitb16", "vit_base_patch16_224", "unic.pth", 85_798_656),
    ("naver_unic_vitl14", "vit_large_patch14_224", "unic_l.pth", 303_178_752),
):
    TEACHERS.add(
        name,
        TeacherSpec(
            name=name,
            model=model,
            weights=WeightsFile(
                name=file, url=f"https://download.europe.naverlabs.com/ComputerVision/unic/{file}"
            ),
            convert=convert,
            parameters=parameters,
            positions=Resampling(antialias=False, offset=0.1),  # the default of DINOv2's ViT, which it is
            licence="CC BY-NC-SA 4.0",
            source="https://github.com/naver/unic",
        ),
    )
