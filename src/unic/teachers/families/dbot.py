"""dBOT, fine-tuned on ImageNet-1K: masked knowledge distillation (Liu et al., ICLR 2024).

It classifies from the mean of its patches, so CLS is fc_norm of that mean, and its patches have no norm: their scale
is large, which standardisation takes care of.
"""

from unic.teachers import TEACHERS, TeacherSpec
from unic.teachers.fetch import WeightsFile

TEACHERS.add(
    "dbotft_vitb16",
    TeacherSpec(
        name="dbotft_vitb16",
        model="vit_base_patch16_224",
        options={"global_pool": "avg"},
        cls="pooled",
        parameters=85_798_656,
        weights=WeightsFile(
            name="84.5_dbot_base_finetune.pth",
            url="https://lf3-nlp-opensource.bytetos.com/obj/nlp-opensource/mmodal/dbot/84.5_dbot_base_finetune.pth",
        ),
        licence="unknown (not stated with the weights)",
        source="https://github.com/liuxingbin/dbot",
    ),
)
