"""DINO: self-distilled ViTs (Caron et al., ICCV 2021). The files hold a bare state dict under timm's names."""

from unic.models.config import Resampling
from unic.teachers import TEACHERS, TeacherSpec
from unic.teachers.fetch import WeightsFile

# facebookresearch/dino vision_transformer.py, interpolate_pos_encoding
POSITIONS = Resampling(antialias=False, offset=0.1)

for size, folder, patch, parameters in (
    ("small", "dino_deitsmall16_pretrain", 16, 21_665_664),
    ("small", "dino_deitsmall8_pretrain", 8, 21_670_272),
    ("base", "dino_vitbase16_pretrain", 16, 85_798_656),
    ("base", "dino_vitbase8_pretrain", 8, 85_807_872),
):
    name = f"dino_vit{size[0]}{patch}"
    TEACHERS.add(
        name,
        TeacherSpec(
            name=name,
            model=f"vit_{size}_patch{patch}_224",
            weights=WeightsFile(
                name=f"{folder}.pth", url=f"https://dl.fbaipublicfiles.com/dino/{folder}/{folder}.pth"
            ),
            parameters=parameters,
            positions=POSITIONS,
            licence="Apache-2.0",
            source="https://github.com/facebookresearch/dino",
        ),
    )
