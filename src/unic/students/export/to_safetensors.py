"""safetensors: the encoder under timm's parameter names, and its ladder and statistics in a file beside it."""

import json
from pathlib import Path

import timm
from safetensors import safe_open
from safetensors.torch import load_file
from timm.data import IMAGENET_DEFAULT_MEAN, IMAGENET_DEFAULT_STD

from unic.models.config import ENCODER_FILE
from unic.models.student import write_encoder
from unic.students.export import EXPORTS, Format
from unic.students.export.parity import Read
from unic.students.export.vit_architecture import timm_form, timm_reader
from unic.students.heads_file import HEADS_FILE, write_heads
from unic.students.loaded_student import LoadedStudent


def write(student: LoadedStudent, folder: Path, head: str | None) -> None:
    """encoder.safetensors, and heads.safetensors where the student has any: those of all teachers, or of `head`."""
    write_encoder(folder / ENCODER_FILE, student.cfg, student.encoder)
    if student.ladder is not None:
        write_heads(folder / HEADS_FILE, student, head)


def reload(folder: Path) -> Read:
    """From the note in the file's header alone."""
    with safe_open(folder / ENCODER_FILE, "pt") as file:
        note = json.loads(file.metadata()["unic.student"])
    names = {
        "image_size": "img_size",
        "patch_size": "patch_size",
        "width": "embed_dim",
        "depth": "depth",
        "heads": "num_heads",
        "registers": "reg_tokens",
    }
    options = {names[key]: note[key] for key in names if note[key] is not None}
    name = (note["model"] or "vit_tiny_patch16_224").split(".")[0]
    model = timm.create_model(name, num_classes=0, global_pool="token", **options)
    model.load_state_dict(load_file(folder / ENCODER_FILE))
    return timm_reader(model, IMAGENET_DEFAULT_MEAN, IMAGENET_DEFAULT_STD)


def usage(student: LoadedStudent, head: str | None) -> str:
    name, options = timm_form(student)
    given = ", ".join(f"{key}={json.dumps(value)}" for key, value in options.items())
    size = student.encoder.image_size
    return f"""\
import timm
import torch
from safetensors.torch import load_file
from timm.data import IMAGENET_DEFAULT_MEAN, IMAGENET_DEFAULT_STD

model = timm.create_model("{name}", {given}).eval()
model.load_state_dict(load_file("{ENCODER_FILE}"))  # in the folder of this file

mean, std = (torch.tensor(values).view(3, 1, 1) for values in (IMAGENET_DEFAULT_MEAN, IMAGENET_DEFAULT_STD))
images = torch.rand(1, 3, {size}, {size})  # RGB in [0, 1]
with torch.inference_mode():
    tokens = model.forward_features((images - mean) / std)
cls, patches = tokens[:, 0], tokens[:, model.num_prefix_tokens :]
"""


def notes(student: LoadedStudent, head: str | None) -> str:
    if student.ladder is None:
        return ""
    teachers = ", ".join([head] if head else student.standardizers)
    return (
        f"{HEADS_FILE} holds what maps the tokens of the blocks into the feature spaces of: {teachers} "
        f"(projectors, and the mean and std of each teacher's features)."
    )


EXPORTS.add(
    "safetensors",
    Format(
        what="The safetensors file of a student, with timm's parameter names",
        library="timm",
        write=write,
        reload=reload,
        usage=usage,
        notes=notes,
        heads="beside",
    ),
)
