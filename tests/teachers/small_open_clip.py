"""Small architectures of open_clip, one for each way in which it makes CLS of an image, and files of their weights."""

import json
from pathlib import Path
from typing import Any

import open_clip
import torch

TEXT = {"context_length": 8, "vocab_size": 49408, "width": 16, "heads": 2, "layers": 1}
VIT = {"image_size": 32, "patch_size": 8, "width": 32, "head_width": 16, "layers": 3, "mlp_ratio": 2.0}
TIMM = {"timm_model_pretrained": False, "image_size": 160}
ARCHITECTURES = {
    "unic-vit": {"vision_cfg": VIT},
    "unic-vit-custom": {"vision_cfg": VIT, "custom_text": True},
    "unic-avg": {"vision_cfg": {**VIT, "pool_type": "avg"}},
    "unic-avg-late": {"vision_cfg": {**VIT, "pool_type": "avg", "final_ln_after_pool": True}},
    "unic-coca": {
        "vision_cfg": {
            **VIT, "attentional_pool": True, "attn_pooler_queries": 5, "attn_pooler_heads": 2, "output_tokens": True
        },
        "text_cfg": {**TEXT, "embed_cls": True, "output_tokens": True},
        "multimodal_cfg": {**TEXT, "attn_pooler_heads": 2},
        "custom_text": True,
    },
    "unic-resnet": {"vision_cfg": {"image_size": 64, "width": 8, "head_width": 8, "layers": [1, 1, 1, 1]}},
    # The smallest of timm's with the pooling of SigLIP, EVA and CLIP's ConvNeXts.
    "unic-map": {
        "vision_cfg": {**TIMM, "timm_model_name": "test_vit2", "timm_pool": "map", "timm_proj": "none"},
        "embed_dim": 64,
        "custom_text": True,
    },
    "unic-token": {
        "vision_cfg": {**TIMM, "timm_model_name": "test_vit", "timm_pool": "token", "timm_proj": None},
        "custom_text": True,
    },
    "unic-linear": {
        "vision_cfg": {**TIMM, "timm_model_name": "test_convnext", "timm_pool": "", "timm_proj": "linear"},
    },
    "unic-mlp": {
        "vision_cfg": {**TIMM, "timm_model_name": "test_convnext", "timm_pool": "", "timm_proj": "mlp"},
    },
}  # fmt: skip


def add_architectures(folder: Path, architectures: dict[str, dict] = ARCHITECTURES) -> None:
    """Makes open_clip know them, by files in this folder."""
    for name, config in architectures.items():
        (folder / f"{name}.json").write_text(json.dumps({"embed_dim": 16, "text_cfg": TEXT, **config}))
    open_clip.add_model_config(folder)


def model_in_file(name: str, path: Path, **options: Any) -> Any:
    """A model whose weights are in the file, none of them at the values that hide a forgotten norm."""
    torch.manual_seed(0)
    model = open_clip.create_model(name, **options).eval()
    for key, parameter in model.named_parameters():
        if key != "logit_scale":
            torch.nn.init.normal_(parameter, std=0.2)
    torch.save({"epoch": 3, "state_dict": {f"module.{k}": v for k, v in model.state_dict().items()}}, path)
    return model
