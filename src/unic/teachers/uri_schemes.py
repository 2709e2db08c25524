"""The kinds of URI that come with unic. What reads a kind is imported when the first such teacher is loaded."""

from unic.core.registry import on_demand
from unic.teachers import SCHEMES, Scheme

SCHEMES.add(
    "file",
    Scheme(
        load=on_demand("unic.teachers.from_file:load"),
        options=frozenset({"image_size", "layer", "cls", "model"}),
        example="file:runs/mine/encoder.safetensors",
        what="a student of unic, or weights of any timm model (?model=<timm model>)",
    ),
)
SCHEMES.add(
    "hf",
    Scheme(
        load=on_demand("unic.teachers.from_hf:load"),
        options=frozenset({"image_size", "layer", "cls"}),
        example="hf:facebook/dinov2-with-registers-base",
        what="vision backbones of transformers by hub name or folder: DINOv2, DINOv3, ViT, CLIP, SigLIP, CNNs",
    ),
)
SCHEMES.add(
    "hub",
    Scheme(
        load=on_demand("unic.teachers.from_torch_hub:load"),
        options=frozenset({"image_size", "layer", "trust"}),
        example="hub:facebookresearch/dinov2:dinov2_vitb14_reg?trust=1",
        what="torch.hub models in the manner of DINO and DINOv2; runs the repository's code",
    ),
)
SCHEMES.add(
    "open_clip",
    Scheme(
        load=on_demand("unic.teachers.from_open_clip:load"),
        options=frozenset({"image_size", "layer", "pretrained"}),
        example="open_clip:ViT-H-14-quickgelu/dfn5b",
        what="the image tower of any open_clip model, by tag or file: CLIP, MetaCLIP, DFN, SigLIP, CoCa",
    ),
)
SCHEMES.add(
    "timm",
    Scheme(
        load=on_demand("unic.teachers.from_timm:load"),
        outline=on_demand("unic.teachers.from_timm:outline"),
        options=frozenset({"image_size", "layer", "cls", "pretrained"}),
        example="timm:vit_small_patch16_224.dino",
        what="any timm model: ViTs with or without class token, registers, CNNs",
    ),
)
