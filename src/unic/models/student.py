"""The student: a ViT encoder, and the ladder that speaks every teacher's language while it is trained."""

import dataclasses
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float
from timm.layers.drop import DropPath
from timm.models.vision_transformer import VisionTransformer
from torch import Tensor, nn
from torch.profiler import record_function

from unic.core.dataclass_json import from_dict, to_dict
from unic.core.errors import ConfigError, WeightsError
from unic.core.keyed_random import seeded_torch
from unic.method.types import Pixels, Tokens, Widths
from unic.models.config import IMAGENET_MEAN, IMAGENET_STD, LadderConfig, Resampling, StudentConfig
from unic.models.ladder import Ladder
from unic.models.positions import Positions, fit_positions, positions_of
from unic.models.replace_modules import replace_modules
from unic.models.timm_encoder import TimmEncoder, create_timm
from unic.models.weights import load_strictly, read_metadata, read_weights, write_weights

# The note in the header of a released file that says which architecture it is.
_NOTE = "unic.student"

DEFAULT_RESAMPLING = Resampling()


@dataclass(frozen=True)
class StudentKernels:
    """The functions a student is made of: those of its definition, or faster ones that compute the same.

    encoder: from the encoder as it was built to the one that the student holds, with the same parameters.
    read_blocks: (encoder, images) -> the tokens after each block.
    project: (ladder, tokens after each block) -> {teacher: Tokens}.
    """

    encoder: Callable[[TimmEncoder], TimmEncoder] = lambda encoder: encoder
    read_blocks: Callable[[TimmEncoder, Pixels], Sequence[Tokens]] = TimmEncoder.block_outputs
    project: Callable[[Ladder, Sequence[Tokens]], dict[str, Tokens]] = Ladder.forward


EXACT = StudentKernels()


class Student(nn.Module):
    """Images -> {teacher: Tokens}. `encoder` is what is released; `ladder` is discarded after training.

    The encoder's final norm stays as it was initialised (weight 1, bias 0) and is not trained: the ladder reads
    tokens before it, and the released encoder applies it (UNIC, as published).
    """

    _drop_probs: Float[Tensor, "P 1"]

    def __init__(self, encoder: TimmEncoder, ladder: Ladder, kernels: StudentKernels = EXACT):
        super().__init__()
        self.encoder = encoder = kernels.encoder(encoder)
        self.ladder = ladder
        self._kernels = kernels
        encoder.model.norm.requires_grad_(False)
        self.drop_paths = [module for module in encoder.modules() if isinstance(module, KeyedDropPath)]
        drop_probs = torch.tensor([drop_path.drop_prob for drop_path in self.drop_paths])
        self.register_buffer("_drop_probs", drop_probs[:, None], persistent=False)

    def forward(
        self,
        images: Pixels,
        draws: Float[Tensor, "B P"] | None = None,
    ) -> dict[str, Tokens]:
        """draws: uniform in [0, 1), one a residual branch (`num_draws`); None: no branch is skipped."""
        if draws is None:
            factors = [None] * len(self.drop_paths)
        else:  # (B, P) -> P of (B,)
            factors = ((draws.T.contiguous() >= self._drop_probs) / (1 - self._drop_probs)).unbind()
        for drop_path, factor in zip(self.drop_paths, factors, strict=True):
            drop_path.factor = factor
        with record_function("student_forward"):
            blocks = self.read_blocks(images)
        with record_function("ladder_and_loss"):
            return self.project(blocks)

    def read_blocks(self, images: Pixels) -> Sequence[Tokens]:
        """Tokens after each block of the encoder, before its final norm."""
        return self._kernels.read_blocks(self.encoder, images)

    def project(self, blocks: Sequence[Tokens]) -> dict[str, Tokens]:
        """What the ladder makes of the tokens after each block: {teacher: Tokens of its widths}."""
        return self._kernels.project(self.ladder, blocks)

    @property
    def num_draws(self) -> int:
        return len(self.drop_paths)


class KeyedDropPath(nn.Module):
    """Stochastic depth whose decisions are handed in, so that they can be a function of the image's identity."""

    def __init__(self, drop_prob: float):
        super().__init__()
        self.drop_prob = drop_prob
        self.factor: Float[Tensor, " B"] | None = None
        """For each image 0, or 1 / (1 - drop_prob); the student sets it. None: nothing is skipped."""

    def forward(self, x: Float[Tensor, "B S D"]) -> Float[Tensor, "B S D"]:
        if not self.training or self.factor is None:
            return x
        return x * self.factor.to(x.dtype)[:, None, None]


def build_student(
    cfg: StudentConfig,
    ladder: LadderConfig,
    teachers: Mapping[str, Widths],
    *,
    seed: int,
    kernels: StudentKernels = EXACT,
) -> Student:
    """A student with random weights, which are a function of the seed; the global generators are left alone."""
    encoder = build_encoder(cfg, seed=seed)
    with seeded_torch(seed, "ladder weights"):
        projectors = Ladder(teachers, dim=encoder.dim, num_blocks=len(encoder.model.blocks), cfg=ladder)
    return Student(encoder, projectors, kernels).train()


def build_encoder(
    cfg: StudentConfig,
    *,
    seed: int,
    name: str = "student",
    positions: Positions | None = None,
) -> TimmEncoder:
    """The student's encoder alone, with random weights. positions: as TimmEncoder takes them."""
    with seeded_torch(seed, "student weights"):
        model = _vit(cfg)
    _key_drop_paths(model)
    return TimmEncoder(
        model,
        name=name,
        image_size=cfg.image_size,
        mean=IMAGENET_MEAN,
        std=IMAGENET_STD,
        cls="token",
        positions=positions,
    )


def encoder_with_weights(
    cfg: StudentConfig,
    weights: Mapping[str, Tensor],
    *,
    name: str,
    origin: str,
    resampling: Resampling = DEFAULT_RESAMPLING,
) -> TimmEncoder:
    """The frozen encoder of a student, from its weights under timm's names.

    The position embedding is brought to cfg.image_size as `resampling` says, where it is of another size.
    Strict: raises WeightsError naming `origin`.
    """
    encoder = build_encoder(cfg, seed=0, name=name, positions=positions_of(weights, resampling))
    load_strictly(encoder.model, fit_positions(weights, encoder.model, resampling), origin)
    return encoder.eval().requires_grad_(False)


def write_encoder(path: Path, cfg: StudentConfig, encoder: TimmEncoder) -> None:
    """The encoder alone, under timm's parameter names, with a note of what it is: all that `read_encoder` needs."""
    write_weights(path, encoder.model.state_dict(), {_NOTE: json.dumps(to_dict(cfg))})


def read_encoder(path: Path, *, image_size: int | None = None) -> TimmEncoder | None:
    """The frozen encoder that `write_encoder` wrote; None for a file of weights without its note.

    image_size: another one than it was trained at; the position embedding is resampled.
    """
    weights = read_weights(path)  # says it best when there is no such file, or a damaged one
    cfg = read_note(path)
    if cfg is None:
        return None
    if image_size is not None:
        cfg = dataclasses.replace(cfg, image_size=image_size)
    return encoder_with_weights(cfg, weights, name=path.stem, origin=str(path))


def read_note(path: Path) -> StudentConfig | None:
    """The architecture that `write_encoder` noted in a file; None for a file without its note."""
    note = read_metadata(path).get(_NOTE)
    try:
        return None if note is None else from_dict(StudentConfig, json.loads(note), "student.")
    except ValueError as error:
        raise WeightsError(f"{path}: the note on its architecture is damaged ({error})") from error


def _vit(cfg: StudentConfig) -> nn.Module:
    # timm spreads the rate linearly over the blocks and puts a DropPath wherever it is above 0.
    options: dict[str, Any] = {"drop_path_rate": cfg.drop_path}
    if cfg.model is not None:
        with torch.device("meta"):
            model: Any = create_timm(cfg.model, image_size=cfg.image_size)
        if not isinstance(model, VisionTransformer) or not model.has_class_token:
            raise ConfigError(
                f"student.model {cfg.model} is not a ViT with a class token, which a student needs"
            )
        return create_timm(cfg.model, image_size=cfg.image_size, global_pool="token", **options)
    dimensions: dict[str, Any] = {
        "patch_size": cfg.patch_size,
        "embed_dim": cfg.width,
        "depth": cfg.depth,
        "num_heads": cfg.heads,
        "reg_tokens": cfg.registers or 0,
    }
    return VisionTransformer(img_size=cfg.image_size, num_classes=0, **dimensions, **options)


def _key_drop_paths(model: nn.Module) -> None:
    replace_modules(
        model, lambda child: KeyedDropPath(child.drop_prob or 0.0) if isinstance(child, DropPath) else None
    )
