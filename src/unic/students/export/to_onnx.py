"""onnx: one graph from images in [0, 1] to tokens, for any batch and any image size the patches divide.

Letters: B images, N patches, D width, H W pixels, h w grid.
"""

import copy
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.export import Dim

from unic.method.types import Tokens
from unic.students.export import EXPORTS, Format
from unic.students.export.parity import Read
from unic.students.export.vit_architecture import standard_tokens
from unic.students.loaded_student import HeadEncoder, LoadedStudent

# A larger model does not fit into one file of the format (protobuf), so its weights are put into a file beside it.
_LARGEST = 2_000_000_000


def write(student: LoadedStudent, folder: Path, head: str | None) -> None:
    """model.onnx: images -> cls, patches."""
    _needs("onnx", "onnxscript", "onnxruntime")
    standard_tokens(student, "onnx")
    encoder = student.encoder
    graph: Any = _Graph(encoder) if head is None else _HeadGraph(student.head(head))
    p, size = encoder.patch_size, encoder.image_size
    # Unlike anything it is compared on, which shows a graph that took the example's shape for its own. By len(images)
    # the batch would become a constant.
    example = torch.zeros(3, 3, size + p, size + 2 * p)
    shapes = {0: Dim("batch"), 2: p * Dim("rows", min=1), 3: p * Dim("columns", min=1)}
    with torch.no_grad():
        program = torch.onnx.export(
            graph.eval(),
            (example,),
            dynamo=True,
            input_names=["images"],
            output_names=["cls", "patches"],
            dynamic_shapes=(shapes,),
            verbose=False,
        )
    assert program is not None, "torch.onnx.export with dynamo gives a program"
    size_of = sum(tensor.nbytes for tensor in graph.state_dict().values())
    program.save(folder / "model.onnx", external_data=size_of > _LARGEST)


def reload(folder: Path) -> Read:
    (onnxruntime,) = _needs("onnxruntime")
    session = onnxruntime.InferenceSession(folder / "model.onnx", providers=["CPUExecutionProvider"])

    def read(images: Float[Tensor, "B 3 H W"]) -> Tokens:
        cls, patches = session.run(["cls", "patches"], {"images": images.numpy()})
        return Tokens(torch.from_numpy(cls), torch.from_numpy(patches))

    return read


def usage(student: LoadedStudent, head: str | None) -> str:
    size = student.encoder.image_size
    return f"""\
import numpy as np
import onnxruntime

session = onnxruntime.InferenceSession("model.onnx")  # in the folder of this file
images = np.random.rand(1, 3, {size}, {size}).astype(np.float32)  # RGB in [0, 1]; the graph normalises them
cls, patches = session.run(["cls", "patches"], {{"images": images}})
"""


def notes(student: LoadedStudent, head: str | None) -> str:
    return (
        f"Any batch; height and width may be any multiples of {student.encoder.patch_size} pixels: the graph "
        f"resamples the position embedding (bicubic, antialiased)."
    )


class _Graph(nn.Module):
    """The encoder with its mean and std, written so that batch, height and width stay symbols."""

    mean: Tensor
    std: Tensor
    prefix: Tensor
    grid: Tensor

    def __init__(self, encoder: Any):
        super().__init__()
        model = encoder.model
        self.projection, self.blocks = model.patch_embed.proj, model.blocks
        self.norm_pre, self.norm = model.norm_pre, model.norm
        prefix = [token for token in (model.cls_token, model.reg_token) if token is not None]
        tokens, positions, rows = torch.cat(prefix, dim=1), model.pos_embed, encoder.grid[0]
        if not model.no_embed_class:
            tokens = tokens + positions[:, : tokens.shape[1]]
            positions = positions[:, tokens.shape[1] :]
        self.register_buffer("mean", encoder.mean)
        self.register_buffer("std", encoder.std)
        self.register_buffer("prefix", tokens.detach())
        self.register_buffer(
            "grid", positions.detach()[0].T.unflatten(1, (rows, rows))
        )  # (1, N, D) -> (D, h, w)

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor]:
        x = self.embed(images)
        for block in self.blocks:
            x = block(x)
        return self.split(self.norm(x))

    def embed(self, images: Tensor) -> Tensor:
        maps = self.projection((images - self.mean) / self.std)
        rows, columns = maps.shape[2:]
        side = self.grid.shape[1]
        positions = _bicubic(rows, side) @ self.grid @ _bicubic(columns, side).T
        patches = (maps + positions).flatten(2).transpose(1, 2)  # (B, D, h, w) -> (B, N, D)
        return self.norm_pre(torch.cat([self.prefix.expand(images.shape[0], -1, -1), patches], dim=1))

    def split(self, x: Tensor) -> tuple[Tensor, Tensor]:
        return x[:, 0], x[:, self.prefix.shape[1] :]


class _HeadGraph(_Graph):
    """The same up to the blocks, then the ladder of one teacher and that teacher's mean and std."""

    def __init__(self, student: HeadEncoder):
        super().__init__(student.model["encoder"])
        self.ladder, self.teacher = student.model["ladder"], student.teacher
        # y * scale + shift, from what the inverse makes of 0 and 1: in double precision, as it is a difference.
        inverse = copy.deepcopy(student.model["standardizer"]).double().inverse
        ends = [
            inverse(Tokens(torch.full((1, w.cls), y).double(), torch.full((1, 1, w.patches), y).double()))
            for w in (student.widths,)
            for y in (0.0, 1.0)
        ]
        for kind in ("cls", "patches"):
            shift, end = (getattr(tokens, kind) for tokens in ends)
            self.register_buffer(f"{kind}_shift", shift.float())
            self.register_buffer(f"{kind}_scale", (end - shift).float())

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor]:
        x = self.embed(images)
        outputs = []
        for block in self.blocks:
            x = block(x)
            outputs.append(Tokens(*self.split(x)))
        tokens = self.ladder(outputs)[self.teacher]
        return (
            tokens.cls * self.cls_scale + self.cls_shift,
            tokens.patches * self.patches_scale + self.patches_shift,
        )


def _bicubic(rows: Any, side: int) -> Tensor:
    """The matrix, rows x side, that resamples like torch's antialiased bicubic interpolation.

    ONNX has an operator for that, but with another filter; a product with this matrix is the same everywhere, and
    the identity where rows is side. Filter: Keys, a = -0.5; widened by the scale where the grid shrinks.
    """
    scale = side / rows
    centres = (torch.arange(rows) + 0.5) * scale
    distances = (torch.arange(side) + 0.5 - centres[:, None]).abs() / torch.sym_max(scale, 1.0)
    near = (1.5 * distances - 2.5) * distances**2 + 1
    far = ((-0.5 * distances + 2.5) * distances - 4) * distances + 2
    weights = torch.where(distances < 1, near, torch.where(distances < 2, far, 0.0))
    return weights / weights.sum(1, keepdim=True)


def _needs(*packages: str) -> list[Any]:
    import importlib

    try:
        return [importlib.import_module(package) for package in packages]
    except ImportError as error:
        raise ImportError(f"--to onnx needs {', '.join(packages)}: pip install 'unic[onnx]'") from error


EXPORTS.add(
    "onnx",
    Format(
        what="ONNX (model.onnx: images in [0, 1] -> cls, patches)",
        library="onnxruntime",
        card_library="onnx",
        write=write,
        reload=reload,
        usage=usage,
        notes=notes,
        heads="instead",
    ),
)
