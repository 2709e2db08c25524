"""What a run begins with instead of fresh weights: the student of another run, or an encoder's file."""

import logging
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file
from torch import Tensor

from unic.core.config import from_dict, read_json
from unic.core.errors import ConfigError, WeightsError
from unic.core.files import MANIFEST, file_sha256, newest_valid
from unic.method.standardize import Standardizer
from unic.method.tokens import Widths
from unic.models.config import StudentConfig
from unic.models.ladder import Ladder
from unic.models.positions import Resampling, fit_positions
from unic.models.student import Student, build_encoder, read_encoder
from unic.models.timm_encoder import TimmEncoder
from unic.models.weights import below, load_strictly

log = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class InitRecord:
    """Where the weights of step 0 came from; part of every checkpoint of the run."""

    path: str
    sha256: str
    """Of the encoder's file, or of the manifest of the checkpoint that was read."""
    statistics: tuple[str, ...] = ()
    """Teachers whose statistics came with it, and so are not measured before step 0."""


@dataclass(frozen=True, kw_only=True)
class InitSource:
    """What was read: an encoder to compare with, and tensors."""

    path: Path
    sha256: str
    encoder: TimmEncoder
    """Its architecture; its weights do not matter."""
    weights: Mapping[str, Tensor]
    """Of encoder.model."""
    ladder: Mapping[str, Tensor] = field(default_factory=dict)
    """Of the ladder: heads.<teacher>.*; empty for an encoder without one."""
    statistics: Mapping[str, Tensor] = field(default_factory=dict)
    """<teacher>.<cls|patch>_<mean|std>."""


def read_init_source(path: Path) -> InitSource:
    """Reads the newest valid checkpoint of a run folder, or the file of an encoder (encoder.safetensors).

    Raises FileNotFoundError, ConfigError for what is neither, and WeightsError for damaged files.
    """
    if path.is_dir():
        return _read_run(path)
    if not path.exists():
        raise FileNotFoundError(f"start {path}: no such run folder or file")
    encoder = read_encoder(path)
    if encoder is None:
        raise ConfigError(
            f"start {path} does not say which student it is; give a run folder or its encoder.safetensors"
        )
    return InitSource(
        path=path, sha256=file_sha256(path), encoder=encoder, weights=encoder.model.state_dict()
    )


def initialize(
    found: InitSource, cfg: StudentConfig, student: Student, standardizers: Mapping[str, Standardizer]
) -> InitRecord:
    """Takes over the encoder, and projectors and statistics of the teachers that both runs have; says which.

    cfg: that of `student`, whose own modules may be faster forms. The position embedding is resampled where the image
    size differs. Raises WeightsError or ConfigError when the encoder, or what a shared teacher needs, has another shape
    here.
    """
    model = student.encoder.model
    with torch.device("meta"):
        wanted = build_encoder(cfg, seed=0)
    there, here = (_dimensions(encoder.model) for encoder in (found.encoder, wanted))
    if there != here:
        raise ConfigError(
            f"start {found.path} holds a student of {there}, and this recipe asks for {here}; set student.* as in its "
            f"config.json (only image_size and drop_path may differ)"
        )
    load_strictly(model, fit_positions(found.weights, model, Resampling()), f"start {found.path}")
    if _architecture(found.encoder.model) != _architecture(wanted.model):
        raise ConfigError(
            f"start {found.path} holds a student of the same shapes and another architecture (number of heads, norms "
            f"or activation); only student.image_size and student.drop_path may differ from its own"
        )
    taught = {key.split(".")[1] for key in found.ladder}
    for name in sorted(taught & standardizers.keys()):
        _take_head(found, student.ladder, name)
    with_statistics = tuple(
        name for name in standardizers if _take_statistics(found, name, standardizers[name])
    )
    _report(found, standardizers, taught, with_statistics)
    return InitRecord(path=str(found.path), sha256=found.sha256, statistics=with_statistics)


def without_statistics(start: InitRecord | None, teachers: Sequence[str]) -> list[str]:
    """The teachers whose statistics have to be found before step 0."""
    return [name for name in teachers if start is None or name not in start.statistics]


def _read_run(folder: Path) -> InitSource:
    if not (folder / "config.json").is_file():
        raise ConfigError(f"start {folder} is no run folder: it has no config.json")
    config = read_json(folder / "config.json")
    if not isinstance(config, dict) or "student" not in config:
        raise ConfigError(f"start {folder}: config.json is not the configuration of a run")
    try:
        checkpoint = newest_valid(folder / "checkpoints", set_aside=False)
    except WeightsError as error:  # whose advice is for the run itself
        raise WeightsError(
            f"start {folder}: every checkpoint there is damaged; give another run folder, or an encoder.safetensors"
        ) from error
    if checkpoint is None:
        raise WeightsError(f"start {folder} holds no checkpoint yet; let that run go on first")
    with torch.device("meta"):
        encoder = build_encoder(from_dict(StudentConfig, config["student"], "student."), seed=0)
    state = load_file(checkpoint / "model.safetensors")
    statistics = checkpoint / "statistics.safetensors"
    return InitSource(
        path=folder,
        sha256=file_sha256(checkpoint / MANIFEST),
        encoder=encoder,
        weights=below("encoder.model.", state),
        ladder=below("ladder.", state),
        statistics=load_file(statistics) if statistics.exists() else {},
    )


def _take_head(found: InitSource, ladder: Ladder, teacher: str) -> None:
    head = below(f"heads.{teacher}.", found.ladder)
    there, here = _widths(head), ladder.widths[teacher]
    if there != here:
        raise ConfigError(
            f"start {found.path} learned {teacher} with {there.cls} CLS and {there.patches} patch features, which has "
            f"{here.cls} and {here.patches} in this run; name the same teacher, or leave it out"
        )
    try:
        load_strictly(ladder.heads[teacher], head, f"start {found.path}, the ladder of {teacher},")
    except WeightsError as error:
        raise WeightsError(
            f"{error}; set `ladder` as in its config.json, or start from its encoder.safetensors alone"
        ) from error


def _widths(head: Mapping[str, Tensor]) -> Widths:
    """Read off the last bias of any projector: <cls|patch>.<block>.layers.<0|2>.bias."""
    last = {key.split(".")[0]: len(tensor) for key, tensor in sorted(head.items()) if key.endswith(".bias")}
    return Widths(last.get("cls", 0), last.get("patch", 0))


def _take_statistics(found: InitSource, teacher: str, standardizer: Standardizer) -> bool:
    """False for a teacher without statistics there: it was not taught, or features were not standardised."""
    own = below(f"{teacher}.", found.statistics)
    if not any(tensor.ne(float(key.endswith("std"))).any() for key, tensor in own.items()):
        return False  # nothing, or mean 0 and std 1 everywhere: as a standardizer begins
    load_strictly(standardizer, own, f"start {found.path}, the statistics of {teacher},")
    return True


def _report(
    found: InitSource, teachers: Mapping[str, Standardizer], taught: set[str], with_statistics: Sequence[str]
) -> None:
    def names(chosen: Sequence[str]) -> str:
        return ", ".join(chosen) or "none"

    log.info(
        "beginning with the student of %s; projectors of: %s; statistics of: %s; fresh projectors: %s; left out: %s",
        found.path,
        names([name for name in teachers if name in taught]),
        names(with_statistics),
        names([name for name in teachers if name not in taught]),
        names(sorted(taught - teachers.keys())),
    )


def _dimensions(model: Any) -> str:
    p = model.patch_embed.patch_size[0]
    return f"width {model.embed_dim}, depth {len(model.blocks)}, patch size {p}, {model.num_reg_tokens} registers"


def _architecture(model: Any) -> tuple[str, list[int]]:
    """What shapes do not tell. The rate of drop path may differ: it is no part of the weights."""
    description = re.sub(r".*\(drop_path\d?\).*\n", "", repr(model))
    return description, [block.attn.num_heads for block in model.blocks]
