"""iBOT: masked image modelling with an online tokenizer (Zhou et al., ICLR 2022), random masking, teacher weights."""

from unic.teachers import TEACHERS, TeacherSpec
from unic.teachers.families.dino import POSITIONS
from unic.teachers.fetch import WeightsFile

TEACHERS.add(
    "ibot_vitb16",
    TeacherSpec(
        name="ibot_vitb16",
        model="vit_base_patch16_224",
        weights=WeightsFile(
            name="ibot_vitb16_rand_mask_checkpoint_teacher.pth",
            url="https://lf3-nlp-opensource.bytetos.com/obj/nlp-opensource/archive/2022/ibot/vitb_16_rand_mask/"
            "checkpoint_teacher.pth",
        ),
        parameters=85_798_656,
        positions=POSITIONS,  # its ViT is DINO's
        licence="Apache-2.0",
        source="https://github.com/bytedance/ibot",
    ),
)
