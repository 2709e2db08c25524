"""MetaCLIP ViT-H/14 (Xu et al., ICLR 2024), the model trained on 2.5 B pairs, with its text tower in the same file.

CLS is the class token after the last norm and before the projection to the space shared with text: 1,280 wide.
The network is OpenAI's: quick GELU (the ordinary one gives other numbers), a norm before the blocks.
"""

from typing import TYPE_CHECKING

from unic.models.state_keys import below, renamed
from unic.teachers import TEACHERS, TeacherSpec
from unic.teachers.fetch import WeightsFile

if TYPE_CHECKING:
    from torch import Tensor

NAMES = {
    r"^class_embedding$": "cls_token",
    r"^positional_embedding$": "pos_embed",
    r"^conv1\.": "patch_embed.proj.",
    r"^ln_pre\.": "norm_pre.",
    r"^ln_post\.": "norm.",
    r"^transformer\.resblocks\.": "blocks.",
    r"\.ln_([12])\.": r".norm\1.",
    r"\.attn\.in_proj_": ".attn.qkv.",
    r"\.attn\.out_proj\.": ".attn.proj.",
    r"\.mlp\.c_fc\.": ".mlp.fc1.",
    r"\.mlp\.c_proj\.": ".mlp.fc2.",
}


def convert(state: "dict[str, Tensor]") -> "dict[str, Tensor]":
    """The image tower of a file in open_clip's layout, under timm's names, without the projection."""
    tower = below("visual.", state)
    tower.pop("proj", None)
    tower = renamed(tower, NAMES)
    for key in {"cls_token", "pos_embed"} & tower.keys():
        tower[key] = tower[key].reshape(1, -1, tower[key].shape[-1])  # (D) or (S, D) -> (1, S, D)
    return tower


TEACHERS.add(
    "metaclip_vith14",
    TeacherSpec(
        name="metaclip_vith14",
        model="vit_huge_patch14_clip_quickgelu_224",
        weights=WeightsFile(
            name="metaclip_h14_fullcc2.5b.pt",
            url="https://dl.fbaipublicfiles.com/MMPT/metaclip/h14_fullcc2.5b.pt",
        ),
        convert=convert,
        parameters=630_766_080,
        mean=(0.48145466, 0.4578275, 0.40821073),
        std=(0.26862954, 0.26130258, 0.27577711),
        text_tower="ViT-H-14-quickgelu",
        licence="CC BY-NC 4.0",
        source="https://github.com/facebookresearch/MetaCLIP",
    ),
)
