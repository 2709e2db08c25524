"""hf: transformers' ViT, or its DINOv2 where there are registers or layer-scale; all files are its own.

Letter: L blocks.
"""

from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from unic.core.errors import ConfigError, WeightsError
from unic.method.types import Tokens
from unic.models.weights import renamed
from unic.students.export import EXPORTS, Format
from unic.students.export.parity import Read
from unic.students.export.vit_architecture import PlainViT, dinov2_tokens, mean_and_std, plain_vit
from unic.students.loaded_student import LoadedStudent
from unic.teachers.hf_download import without_bars

# From timm's names to those on the model hub, which every version of transformers reads.
_NAMES = {
    r"^(cls_token|register_tokens|mask_token)$": r"embeddings.\1",
    r"^pos_embed$": "embeddings.position_embeddings",
    r"^patch_embed\.proj\.": "embeddings.patch_embeddings.projection.",
    r"^norm\.": "layernorm.",
    r"^blocks\.": "encoder.layer.",
    r"\.attn\.(query|key|value)\.": r".attention.attention.\1.",
    r"\.attn\.proj\.": ".attention.output.dense.",
    r"\.ls(\d)\.gamma$": r".layer_scale\1.lambda1",
}
_NAMES_VIT = {
    r"\.norm1\.": ".layernorm_before.",
    r"\.norm2\.": ".layernorm_after.",
    r"\.mlp\.fc1\.": ".intermediate.dense.",
    r"\.mlp\.fc2\.": ".output.dense.",
}


@without_bars()
def write(student: LoadedStudent, folder: Path, head: str | None) -> None:
    """config.json, model.safetensors and preprocessor_config.json, each as transformers writes it."""
    transformers = _transformers()
    vit = plain_vit(student, "hf")
    kind = _kind(vit)
    config = getattr(transformers, f"{kind}Config")(**_dimensions(vit, kind))
    options = {"add_pooling_layer": False} if kind == "ViT" else {}
    model, info = getattr(transformers, f"{kind}Model").from_pretrained(
        None, config=config, state_dict=_state(student, vit, kind), output_loading_info=True, **options
    )
    wrong = {what: sorted(keys) for what, keys in info.items() if keys}
    if wrong:
        raise WeightsError(f"transformers' {kind}Model does not take the weights of {student.name}: {wrong}")
    model.save_pretrained(folder)
    mean, std = mean_and_std(student.encoder)
    transformers.BitImageProcessor(
        size={"shortest_edge": vit.image_size},
        crop_size={"height": vit.image_size, "width": vit.image_size},
        resample=3,  # bicubic
        image_mean=mean,
        image_std=std,
    ).save_pretrained(folder)


@without_bars()
def reload(folder: Path) -> Read:
    transformers = _transformers()
    config = transformers.AutoConfig.from_pretrained(folder)
    options = {"add_pooling_layer": False} if config.model_type == "vit" else {}
    model = transformers.AutoModel.from_pretrained(folder, **options).eval()
    processor = transformers.AutoImageProcessor.from_pretrained(folder)
    mean, std = (torch.tensor(v).view(3, 1, 1) for v in (processor.image_mean, processor.image_std))
    num_prefix = 1 + getattr(config, "num_register_tokens", 0)

    def read(images: Float[Tensor, "B 3 H W"]) -> Tokens:
        tokens = model(pixel_values=(images - mean) / std).last_hidden_state
        return Tokens(tokens[:, 0], tokens[:, num_prefix:])

    return read


def usage(student: LoadedStudent, head: str | None) -> str:
    vit = plain_vit(student, "hf")
    options = ", add_pooling_layer=False" if _kind(vit) == "ViT" else ""
    return f"""\
import torch
from PIL import Image
from transformers import AutoImageProcessor, AutoModel

processor = AutoImageProcessor.from_pretrained(".")  # "." is the folder of this file
model = AutoModel.from_pretrained("."{options}).eval()
image = Image.new("RGB", (640, 480))  # or Image.open("photo.jpg").convert("RGB")
with torch.inference_mode():
    tokens = model(**processor(images=image, return_tensors="pt")).last_hidden_state
cls, patches = tokens[:, 0], tokens[:, {1 + vit.registers} :]
"""


def _kind(vit: PlainViT) -> str:
    """Registers of transformers come with layer-scale, which is 1 where the student has none."""
    if vit.registers:
        return "Dinov2WithRegisters"
    return "Dinov2" if vit.layer_scale else "ViT"


def _dimensions(vit: PlainViT, kind: str) -> dict[str, Any]:
    config: dict[str, Any] = {
        "hidden_size": vit.width,
        "num_hidden_layers": vit.depth,
        "num_attention_heads": vit.heads,
        "hidden_act": "gelu",
        "layer_norm_eps": vit.eps,
        "image_size": vit.image_size,
        "patch_size": vit.patch_size,
        "qkv_bias": True,
    }
    if kind == "ViT":
        return config | {"intermediate_size": vit.hidden}
    if vit.hidden % vit.width:
        raise ConfigError(
            f"--to hf: {kind}Model wants MLPs a whole number of times as wide as the tokens, "
            f"not {vit.hidden} for {vit.width}; use --to timm"
        )
    registers = {"num_register_tokens": vit.registers} if vit.registers else {}
    return config | {"mlp_ratio": vit.hidden // vit.width} | registers


def _state(student: LoadedStudent, vit: PlainViT, kind: str) -> dict[str, Tensor]:
    model = student.encoder.model
    state = {**model.state_dict(), **dinov2_tokens(model)}
    state.pop("reg_token", None)
    for key in [key for key in state if ".attn.qkv." in key]:
        parts = state.pop(key).chunk(3)  # (3 D, ...) -> queries, keys, values
        for name, part in zip(("query", "key", "value"), parts, strict=True):
            state[key.replace("qkv", name)] = part.clone()
    if kind == "ViT":
        return renamed(state, _NAMES | _NAMES_VIT)
    state["mask_token"] = torch.zeros(1, vit.width)
    if not vit.layer_scale:
        ones = torch.ones(vit.width)
        state |= {f"blocks.{block}.ls{i}.gamma": ones.clone() for block in range(vit.depth) for i in (1, 2)}
    return renamed(state, _NAMES)


def _transformers() -> Any:
    try:
        import transformers
    except ImportError as error:
        raise ImportError("--to hf needs transformers: pip install 'unic[hf]'") from error
    return transformers


EXPORTS.add(
    "hf",
    Format(
        what="transformers' folder (ViTModel, or Dinov2Model with registers or layer-scale)",
        library="transformers",
        write=write,
        reload=reload,
        usage=usage,
    ),
)
