"""dinov2: one torch file with the parameter names of DINOv2's released backbones, for code that reads those."""

import json
import re
from pathlib import Path
from typing import Any

import timm
import torch
from timm.models.vision_transformer import checkpoint_filter_fn

from unic.core.files import write_json
from unic.students.export import EXPORTS, Format
from unic.students.export.parity import Read
from unic.students.export.to_timm import preprocessing
from unic.students.export.vit_architecture import dinov2_tokens, plain_vit, timm_form, timm_reader
from unic.students.loaded_student import LoadedStudent


def write(student: LoadedStudent, folder: Path, head: str | None) -> None:
    """<name>.pth, tensors only; and config.json, since the file cannot tell heads from width."""
    vit = plain_vit(student, "dinov2")
    model = student.encoder.model
    state = {**model.state_dict(), **dinov2_tokens(model), "mask_token": torch.zeros(1, vit.width)}
    state.pop("reg_token", None)
    torch.save({key: tensor.clone() for key, tensor in state.items()}, folder / _file(student))
    name, options = timm_form(student)
    # timm keeps registers, and the class token beside them, without positions where it reads such a file.
    options["no_embed_class"] = bool(vit.registers)
    facts = preprocessing(student)
    write_json(folder / "config.json", {"architecture": name, "model_args": options, "pretrained_cfg": facts})


def reload(folder: Path) -> Read:
    config = json.loads((folder / "config.json").read_text())
    (file,) = folder.glob("*.pth")
    model: Any = timm.create_model(config["architecture"], **config["model_args"])
    state = torch.load(file, map_location="cpu", weights_only=True)
    model.load_state_dict(checkpoint_filter_fn(state, model))
    return timm_reader(model, config["pretrained_cfg"]["mean"], config["pretrained_cfg"]["std"])


def usage(student: LoadedStudent, head: str | None) -> str:
    size = student.encoder.image_size
    return f"""\
import json
from pathlib import Path

import timm
import torch
from timm.models.vision_transformer import checkpoint_filter_fn

config = json.loads(Path("config.json").read_text())  # in the folder of this file
model = timm.create_model(config["architecture"], **config["model_args"]).eval()
weights = torch.load("{_file(student)}", weights_only=True)
model.load_state_dict(checkpoint_filter_fn(weights, model))

mean, std = (torch.tensor(config["pretrained_cfg"][key]).view(3, 1, 1) for key in ("mean", "std"))
images = torch.rand(1, 3, {size}, {size})  # RGB in [0, 1]
with torch.inference_mode():
    tokens = model.forward_features((images - mean) / std)
cls, patches = tokens[:, 0], tokens[:, model.num_prefix_tokens :]
"""


def notes(student: LoadedStudent, head: str | None) -> str:
    vit = plain_vit(student, "dinov2")
    scale = (
        "1.0" if vit.layer_scale else "None (the student has no layer-scale, so the file has no ls1 and ls2)"
    )
    return (
        f"For DINOv2's own DinoVisionTransformer: img_size={vit.image_size}, patch_size={vit.patch_size}, "
        f"embed_dim={vit.width}, depth={vit.depth}, num_heads={vit.heads}, mlp_ratio={vit.hidden / vit.width:g}, "
        f"num_register_tokens={vit.registers}, block_chunks=0, init_values={scale}."
    )


def _file(student: LoadedStudent) -> str:
    return f"{re.sub(r'[^A-Za-z0-9_.-]+', '_', student.name).strip('._') or 'student'}.pth"


EXPORTS.add(
    "dinov2",
    Format(
        what="The file of a DINOv2 backbone (torch, tensors only)",
        library="timm",
        write=write,
        reload=reload,
        usage=usage,
        notes=notes,
    ),
)
