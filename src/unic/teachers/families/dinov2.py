"""DINOv2 without and with registers (Oquab et al., 2023; Darcet et al., 2024): patch 14, trained at up to 518 pixels.

The default of 224 pixels is what its own evaluations use; any multiple of 14 goes (?image_size=518).
"""

from unic.core.registry import on_demand
from unic.models.config import Resampling
from unic.teachers import TEACHERS, TeacherSpec
from unic.teachers.fetch import WeightsFile

for size, plain, with_registers in (
    ("small", 21_628_800, 21_629_952),
    ("base", 85_724_928, 85_727_232),
    ("large", 303_227_904, 303_230_976),
    ("giant", 1_134_769_664, 1_134_774_272),
):
    for registers, parameters in (("", plain), ("_reg", with_registers)):
        file = f"dinov2_vit{size[0]}14{'_reg4' if registers else ''}_pretrain.pth"
        name = f"dinov2_vit{size[0]}14{registers}"
        TEACHERS.add(
            name,
            TeacherSpec(
                name=name,
                model=f"vit_{size}_patch14{'_reg4' if registers else ''}_dinov2",
                weights=WeightsFile(
                    name=file, url=f"https://dl.fbaipublicfiles.com/dinov2/dinov2_vit{size[0]}14/{file}"
                ),
                convert=on_demand("unic.models.dinov2_format:dinov2_to_timm"),
                parameters=parameters,
                # dinov2/hub/backbones.py: interpolate_antialias and interpolate_offset
                positions=Resampling(antialias=True)
                if registers
                else Resampling(antialias=False, offset=0.1),
                licence="Apache-2.0",
                source="https://github.com/facebookresearch/dinov2",
            ),
        )
