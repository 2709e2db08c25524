"""UNIC's own released students (Sariyildiz et al., ECCV 2024), to compare with or to learn from.

Their ladder stays in the file: `unic import` keeps it, and so gives the student in its teachers' feature spaces.
"""

from torch import Tensor

from unic.models.dinov2_format import dinov2_to_timm
from unic.models.positions import Resampling
from unic.models.weights import below
from unic.teachers import TEACHERS, TeacherSpec
from unic.teachers.fetch import WeightsFile


def convert(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """The encoder of a published student, under timm's names."""
    return dinov2_to_timm(below("encoder.", state))


for name, model, file in (
    ("naver_unic_vitb16", "vit_base_patch16_224", "unic.pth"),
    ("naver_unic_vitl14", "vit_large_patch14_224", "unic_l.pth"),
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
            positions=Resampling(antialias=False, offset=0.1),  # the default of DINOv2's ViT, which it is
            licence="CC BY-NC-SA 4.0",
            source="https://github.com/naver/unic",
        ),
    )
