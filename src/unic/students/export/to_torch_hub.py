"""hub: a folder for torch.hub, with a hubconf.py that stands alone: no unic, no network.

Used as DINOv2's models are: images normalised by the caller, the same outputs under the same names.
"""

import json
import shutil
from pathlib import Path

import torch
from jaxtyping import Float
from torch import Tensor
from torchvision.transforms.v2 import Normalize

from unic.method.types import Tokens
from unic.models.config import ENCODER_FILE
from unic.models.encoder import IMAGENET_MEAN, IMAGENET_STD
from unic.models.student import write_encoder
from unic.students.export import EXPORTS, Format
from unic.students.export.parity import Read
from unic.students.export.vit_architecture import mean_and_std, timm_form
from unic.students.loaded_student import LoadedStudent

_HUBCONF = '''\
"""A vision transformer for torch.hub; it needs the file {file} beside this one, and no network.

    encoder = torch.hub.load("<this folder>", "encoder", source="local")
"""

from pathlib import Path as _Path

import timm
import torch
from safetensors.torch import load_file as _load_file

dependencies = ["torch", "timm", "safetensors"]

_MODEL = "{model}"
_OPTIONS = {options}
_WEIGHTS = _Path(__file__).with_name("{file}")


def encoder(pretrained=True):
    """RGB images, B x 3 x H x W -> one vector an image.

    Images are normalised with mean {mean} and std {std}, from [0, 1].
    H and W are multiples of {patch}; it was trained at {size} x {size}. Patches come from `forward_features`.
    """
    model = _Encoder()
    if pretrained:
        model.vit.load_state_dict(_load_file(_WEIGHTS))
    return model.eval()


class _Encoder(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.vit = timm.create_model(_MODEL, dynamic_img_size=True, **_OPTIONS)

    def forward(self, images):
        return self.forward_features(images)["x_norm_clstoken"]

    def forward_features(self, images):
        """Tokens after the final norm: x_norm_clstoken, B x D, and x_norm_patchtokens, B x N x D, row by row."""
        tokens = self.vit.forward_features(images)
        return {{
            "x_norm_clstoken": tokens[:, 0],
            "x_norm_patchtokens": tokens[:, self.vit.num_prefix_tokens :],
        }}
'''


def write(student: LoadedStudent, folder: Path, head: str | None) -> None:
    """hubconf.py and the weights."""
    name, options = timm_form(student)
    mean, std = mean_and_std(student.encoder)
    code = _HUBCONF.format(
        file=ENCODER_FILE,
        model=name,
        options=json.dumps(options),
        mean=mean,
        std=std,
        patch=student.encoder.patch_size,
        size=student.encoder.image_size,
    )
    (folder / "hubconf.py").write_text(code, encoding="utf-8")
    write_encoder(folder / ENCODER_FILE, student.cfg, student.encoder)


def reload(folder: Path) -> Read:
    transform = Normalize(IMAGENET_MEAN, IMAGENET_STD)
    model = torch.hub.load(str(folder), "encoder", source="local")
    shutil.rmtree(folder / "__pycache__", ignore_errors=True)  # left by the import of hubconf.py

    def read(images: Float[Tensor, "B 3 H W"]) -> Tokens:
        tokens = model.forward_features(transform(images))  # pyright: ignore[reportAttributeAccessIssue]
        return Tokens(tokens["x_norm_clstoken"], tokens["x_norm_patchtokens"])

    return read


def usage(student: LoadedStudent, head: str | None) -> str:
    size = student.encoder.image_size
    mean, std = mean_and_std(student.encoder)
    return f"""\
import torch
from torchvision.transforms.v2 import Normalize

encoder = torch.hub.load(".", "encoder", source="local")  # "." is the folder of this file
images = torch.rand(1, 3, {size}, {size})  # RGB in [0, 1]
images = Normalize({mean}, {std})(images)
with torch.inference_mode():
    cls = encoder(images)
    patches = encoder.forward_features(images)["x_norm_patchtokens"]
"""


def notes(student: LoadedStudent, head: str | None) -> str:
    return (
        f"Height and width may be any multiples of {student.encoder.patch_size} pixels; the position embedding is "
        f"resampled (bicubic, antialiased)."
    )


EXPORTS.add(
    "hub",
    Format(
        what="A folder for torch.hub (hubconf.py, encoder.safetensors)",
        library="torch",
        card_library="pytorch",
        write=write,
        reload=reload,
        usage=usage,
        notes=notes,
    ),
)
