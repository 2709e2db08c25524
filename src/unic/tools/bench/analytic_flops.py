"""FLOPs from a formula, beside those counted from the operations: each is a check of the other.

Letters: T tokens, D width, L blocks, h hidden width, o width of a teacher.
"""

from typing import Any

import torch
from timm.models.vision_transformer import VisionTransformer

from unic.models.config import LadderConfig
from unic.models.encoder import ImageEncoder
from unic.models.ladder import Ladder
from unic.models.student import build_student
from unic.teachers import short_name
from unic.teachers.load import outline_teacher
from unic.train.recipe import Recipe


def analytic_flops(recipe: Recipe) -> int | None:
    """Of one image: the student forward and backward (twice the forward), teachers forward.

    None where a teacher is no ViT, or only its files tell its shapes. Norms, softmax, GELU and losses are left out.
    """
    teachers = {short_name(reference): outline_teacher(reference) for reference in recipe.teachers}
    known = {name: encoder for name, encoder in teachers.items() if encoder is not None}
    size = recipe.data.views.image_size
    forward = [_vit_macs(encoder) for encoder in known.values()]
    forward = [macs for macs in forward if macs is not None]
    if len(forward) < len(teachers):
        return None
    with torch.device("meta"):
        widths = {name: encoder.widths for name, encoder in known.items()}
        student = build_student(recipe.student, recipe.ladder, widths, seed=recipe.seed)
    of_encoder = _vit_macs(student.encoder)
    assert of_encoder is not None, f"a student is a ViT ({size} px)"
    of_ladder = _ladder_macs(student.ladder, recipe.ladder, student.encoder)
    return 2 * (3 * (of_encoder + of_ladder) + sum(forward))


def _vit_macs(encoder: ImageEncoder) -> int | None:
    """Of a forward pass: for each token and block 12 D^2 and 2 T D; and the embedding of patches."""
    model: Any = encoder.model
    if not isinstance(model, VisionTransformer):
        return None
    rows, columns = encoder.grid
    tokens, dim, p = rows * columns + model.num_prefix_tokens, model.embed_dim, encoder.patch_size
    mlp: Any = model.blocks[0].mlp
    # 8 D^2 for an MLP of four times the width; a gated one has other shapes.
    of_mlp = dim * (mlp.fc1.out_features + mlp.fc2.in_features)
    block = 4 * dim**2 + of_mlp + 2 * tokens * dim
    return tokens * len(model.blocks) * block + rows * columns * 3 * p**2 * dim


def _ladder_macs(ladder: Ladder, cfg: LadderConfig, encoder: ImageEncoder) -> int:
    """For each token and teacher (L - 1)(D h + h o) + D h' + h' o; CLS and patches have their own widths."""
    dim, depth = encoder.dim, len(encoder.model.blocks)
    rows, columns = encoder.grid

    def of_token(width: int) -> int:
        if cfg.projector == "linear":
            return dim * width
        hidden = [cfg.last_hidden if block == depth - 1 else cfg.hidden for block in ladder.blocks]
        return sum(dim * h + h * width for h in hidden)

    return sum(of_token(w.cls) + rows * columns * of_token(w.patches) for w in ladder.widths.values())
