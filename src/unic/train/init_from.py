"""What a run begins with instead of random weights: the student of another run, or of a file."""

import logging
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch

from unic.core.errors import ConfigError, WeightsError
from unic.method.standardize import Standardizer
from unic.models.config import StudentConfig
from unic.models.ladder import Ladder
from unic.models.positions import Resampling, fit_positions
from unic.models.student import Student, build_encoder
from unic.models.weights import load_strictly
from unic.students.loaded_student import LoadedStudent

log = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class InitRecord:
    """Where the weights of step 0 came from; part of every checkpoint of the run."""

    path: str
    sha256: str
    """Of the encoder's file, or of the manifest of the checkpoint that was read."""
    statistics: tuple[str, ...] = ()
    """Teachers whose statistics came with it, and so are not measured before step 0."""


def initialize(
    source: LoadedStudent, cfg: StudentConfig, student: Student, standardizers: Mapping[str, Standardizer]
) -> InitRecord:
    """Takes over the encoder, and projectors and statistics of the teachers that both runs have; says which.

    cfg: that of `student`, whose own modules may be faster forms. The position embedding is resampled where the image
    size differs. Raises WeightsError or ConfigError when the encoder, or what a shared teacher needs, has another shape
    here.
    """
    model, origin = student.encoder.model, f"start {source.source}"
    with torch.device("meta"):
        wanted = build_encoder(cfg, seed=0)
    there, here = (_dimensions(encoder.model) for encoder in (source.encoder, wanted))
    if there != here:
        raise ConfigError(
            f"{origin} holds a student of {there}, and this recipe asks for {here}; set student.* as in its "
            f"config.json (only image_size and drop_path may differ)"
        )
    load_strictly(model, fit_positions(source.encoder.model.state_dict(), model, Resampling()), origin)
    if _architecture(source.encoder.model) != _architecture(wanted.model):
        raise ConfigError(
            f"{origin} holds a student of the same shapes and another architecture (number of heads, norms "
            f"or activation); only student.image_size and student.drop_path may differ from its own"
        )
    shared = [name for name in standardizers if name in source.standardizers]
    for name in sorted(shared):
        _take_head(source, student.ladder, name)
    with_statistics = tuple(name for name in shared if _take_statistics(source, name, standardizers[name]))
    log.info(
        "beginning with the student of %s; projectors of: %s; statistics of: %s; fresh projectors: %s; left out: %s",
        source.source,
        _listed(shared),
        _listed(with_statistics),
        _listed([name for name in standardizers if name not in shared]),
        _listed(sorted(source.standardizers.keys() - shared)),
    )
    return InitRecord(path=str(source.source), sha256=source.sha256(), statistics=with_statistics)


def without_statistics(start: InitRecord | None, teachers: Sequence[str]) -> list[str]:
    """The teachers whose statistics have to be found before step 0."""
    return [name for name in teachers if start is None or name not in start.statistics]


def _take_head(source: LoadedStudent, ladder: Ladder, teacher: str) -> None:
    assert source.ladder is not None, "a student whose teachers are known has a ladder"
    there, here = source.ladder.widths[teacher], ladder.widths[teacher]
    if there != here:
        raise ConfigError(
            f"start {source.source} learned {teacher} with {there.cls} CLS and {there.patches} patch features, which "
            f"has {here.cls} and {here.patches} in this run; name the same teacher, or leave it out"
        )
    try:
        load_strictly(
            ladder.heads[teacher],
            source.ladder.heads[teacher].state_dict(),
            f"start {source.source}, the ladder of {teacher},",
        )
    except WeightsError as error:
        raise WeightsError(
            f"{error}; set `ladder` as in its config.json, or start from its encoder.safetensors alone"
        ) from error


def _take_statistics(source: LoadedStudent, teacher: str, standardizer: Standardizer) -> bool:
    """False where there are no statistics, because features were not standardised."""
    own = source.standardizers[teacher].state_dict()
    if not any(tensor.ne(float(key.endswith("std"))).any() for key, tensor in own.items()):
        return False  # mean 0 and std 1 everywhere: as a standardizer begins
    load_strictly(standardizer, own, f"start {source.source}, the statistics of {teacher},")
    return True


def _listed(names: Sequence[str]) -> str:
    return ", ".join(names) or "none"


def _dimensions(model: Any) -> str:
    p = model.patch_embed.patch_size[0]
    return f"width {model.embed_dim}, depth {len(model.blocks)}, patch size {p}, {model.num_reg_tokens} registers"


def _architecture(model: Any) -> tuple[str, list[int]]:
    """What shapes do not tell. The rate of drop path may differ: it is no part of the weights."""
    description = re.sub(r".*\(drop_path\d?\).*\n", "", repr(model))
    return description, [block.attn.num_heads for block in model.blocks]
