"""The ladder of projectors: from the outputs of the student's blocks to every teacher's feature space.

s_t = sum over blocks l of W2_l GELU(W1_l x_l + b1_l) + b2_l, one such sum per teacher and token type. It is needed
for training only; the encoder under it is what is released. Source: UNIC (ECCV 2024), Sec. 3.2.
"""

from collections.abc import Mapping, Sequence
from typing import Any, cast

import torch
from jaxtyping import Float
from torch import Tensor, nn

from unic.core.errors import ConfigError
from unic.method.types import Tokens, Widths
from unic.models.config import LadderConfig
from unic.models.weights import load_strictly


class Ladder(nn.Module):
    """Block outputs of the student -> {teacher: Tokens of that teacher's widths}.

    Parameters are named heads.<teacher>.<cls|patch>.<block>.layers.<0|2>, as in the published checkpoints.
    """

    def __init__(self, teachers: Mapping[str, Widths], *, dim: int, num_blocks: int, cfg: LadderConfig):
        super().__init__()
        self.widths = dict(teachers)
        self.blocks = _chosen_blocks(cfg, num_blocks)
        hidden = {l: cfg.last_hidden if l == num_blocks - 1 else cfg.hidden for l in self.blocks}  # noqa: E741

        def projectors(width: int) -> nn.ModuleDict:
            if cfg.projector == "linear":
                return nn.ModuleDict({str(block): Linear(dim, width) for block in self.blocks})
            assert cfg.projector in ("ladder", "mlp"), f"no module is built for projector {cfg.projector!r}"
            return nn.ModuleDict({str(block): Mlp(dim, hidden[block], width) for block in self.blocks})

        self.heads = nn.ModuleDict(
            {
                name: nn.ModuleDict({"cls": projectors(widths.cls), "patch": projectors(widths.patches)})
                for name, widths in teachers.items()
            }
        )

    def forward(self, blocks: Sequence[Tokens]) -> dict[str, Tokens]:
        return {
            name: Tokens(
                _sum_over_blocks(head["cls"], [tokens.cls for tokens in blocks]),
                _sum_over_blocks(head["patch"], [tokens.patches for tokens in blocks]),
            )
            for name, head in cast(Any, self.heads.items())
        }


def read_ladder(
    state: Mapping[str, Tensor], *, dim: int, num_blocks: int, cfg: LadderConfig, origin: str
) -> Ladder:
    """The frozen ladder with these weights, for the teachers and widths they show.

    Strict: raises WeightsError naming `origin`.
    """
    biases = {  # heads.<teacher>.<cls|patch>.<block>.layers.<layer>.bias; the last one written has the teacher's width
        (name[1], name[2]): len(tensor)
        for name, tensor in sorted((key.split("."), tensor) for key, tensor in state.items())
        if len(name) == 7 and name[-1] == "bias"
    }
    teachers = {
        name: Widths(width, biases.get((name, "patch"), width))
        for (name, kind), width in biases.items()
        if kind == "cls"
    }
    with torch.device("meta"):  # no initial weights: they take time, and randomness
        ladder = Ladder(teachers, dim=dim, num_blocks=num_blocks, cfg=cfg)
    load_strictly(ladder, state, origin, assign=True)
    return ladder.eval().requires_grad_(False)


class Mlp(nn.Module):
    """Linear, GELU, Linear."""

    def __init__(self, dim: int, hidden: int, width: int):
        super().__init__()
        self.layers = nn.Sequential(nn.Linear(dim, hidden), nn.GELU(), nn.Linear(hidden, width))
        self.apply(_init)

    def forward(self, x: Float[Tensor, "*B D"]) -> Float[Tensor, "*B E"]:
        return self.layers(x)


class Linear(nn.Module):
    """One matrix; named like Mlp so that parameter names keep their form."""

    def __init__(self, dim: int, width: int):
        super().__init__()
        self.layers = nn.Sequential(nn.Linear(dim, width))
        self.apply(_init)

    def forward(self, x: Float[Tensor, "*B D"]) -> Float[Tensor, "*B E"]:
        return self.layers(x)


def _sum_over_blocks(
    projectors: nn.ModuleDict, inputs: Sequence[Float[Tensor, "*B D"]]
) -> Float[Tensor, "*B E"]:
    terms = [projector(inputs[int(block)]) for block, projector in projectors.items()]
    return torch.stack(terms).sum(0) if len(terms) > 1 else terms[0]


def _chosen_blocks(cfg: LadderConfig, num_blocks: int) -> list[int]:
    if cfg.projector != "ladder":
        return [num_blocks - 1]
    if cfg.blocks is None:
        return list(range(num_blocks))
    outside = [block for block in cfg.blocks if not -num_blocks <= block < num_blocks]
    if outside:
        raise ConfigError(f"ladder.blocks names {outside}; the student has blocks 0 to {num_blocks - 1}")
    chosen = sorted({block % num_blocks for block in cfg.blocks})
    if len(chosen) < len(cfg.blocks):
        raise ConfigError(f"ladder.blocks names a block twice: {cfg.blocks}")
    return chosen


def _init(module: nn.Module) -> None:
    if isinstance(module, nn.Linear):
        nn.init.trunc_normal_(module.weight, std=0.02)
        nn.init.zeros_(module.bias)
