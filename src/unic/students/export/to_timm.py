"""timm: a folder as timm shares models, for timm.create_model("local-dir:<folder>") or a model hub."""

from pathlib import Path

import timm
from timm.data import resolve_model_data_config  # pyright: ignore[reportPrivateImportUsage]
from timm.models import save_for_hf

from unic.models.weights import load_strictly
from unic.students.export import EXPORTS, Format
from unic.students.export.parity import Read
from unic.students.export.vit_architecture import mean_and_std, timm_form, timm_reader
from unic.students.loaded_student import LoadedStudent


def write(student: LoadedStudent, folder: Path, head: str | None) -> None:
    """config.json and model.safetensors."""
    name, options = timm_form(student)
    facts = preprocessing(student)
    # Given whole: the architecture's own would claim the origin and licence of other weights.
    own = {"architecture": name, "classifier": "head", **facts}
    model = timm.create_model(name, pretrained_cfg=own, **options)
    load_strictly(model, student.encoder.model.state_dict(), student.name)
    config = {"pretrained_cfg": facts, "model_args": options}
    save_for_hf(model, str(folder), model_config=config, safe_serialization=True)


def reload(folder: Path) -> Read:
    model = timm.create_model(f"local-dir:{folder}", pretrained=True)
    facts = resolve_model_data_config(model)
    return timm_reader(model, facts["mean"], facts["std"])


def usage(student: LoadedStudent, head: str | None) -> str:
    return """\
import timm
import torch
from PIL import Image
from timm.data import create_transform, resolve_model_data_config

model = timm.create_model("local-dir:.", pretrained=True).eval()  # "." is the folder of this file
transform = create_transform(**resolve_model_data_config(model), is_training=False)
image = Image.new("RGB", (640, 480))  # or Image.open("photo.jpg").convert("RGB")
with torch.inference_mode():
    tokens = model.forward_features(transform(image)[None])
cls, patches = tokens[:, 0], tokens[:, model.num_prefix_tokens :]
"""


def preprocessing(student: LoadedStudent) -> dict:
    """As timm notes it: the short side resized to the image size, then the square at the centre."""
    mean, std = mean_and_std(student.encoder)
    size = student.encoder.image_size
    return {
        "input_size": [3, size, size],
        "fixed_input_size": True,
        "interpolation": "bicubic",
        "crop_pct": 1.0,
        "crop_mode": "center",
        "mean": mean,
        "std": std,
        "num_classes": 0,
        "pool_size": None,
        "first_conv": "patch_embed.proj",
    }


EXPORTS.add(
    "timm",
    Format(
        what="timm's folder (config.json, model.safetensors)",
        library="timm",
        write=write,
        reload=reload,
        usage=usage,
    ),
)
