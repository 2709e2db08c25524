"""DeiT III: supervised ViTs with layer-scale (Touvron et al., ECCV 2022), trained on ImageNet-1K at 224 pixels.

Positions are added to the patches only, before the class token joins them: the files hold 196 of them, not 197.
"""

from functools import partial

from unic.models.state_keys import renamed
from unic.teachers import TEACHERS, TeacherSpec
from unic.teachers.fetch import WeightsFile

for size, parameters in (("small", 21_674_496), ("base", 85_816_320), ("large", 303_349_760)):
    name, file = f"deit3_vit{size[0]}16", f"deit_3_{size}_224_1k.pth"
    TEACHERS.add(
        name,
        TeacherSpec(
            name=name,
            model=f"deit3_{size}_patch16_224",
            weights=WeightsFile(name=file, url=f"https://dl.fbaipublicfiles.com/deit/{file}"),
            convert=partial(renamed, names={r"gamma_([12])$": r"ls\1.gamma"}),
            parameters=parameters,
            licence="Apache-2.0",
            source="https://github.com/facebookresearch/deit/blob/main/README_revenge.md",
        ),
    )
