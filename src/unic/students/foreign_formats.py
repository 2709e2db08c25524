"""Students in files: the published unic.pth and unic_l.pth, backbones in DINOv2's format, and our own.

What a file holds is read off the names and shapes of its tensors; nothing in a file is run.
"""

import argparse
import json
import re
from collections.abc import Iterable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from torch import Tensor, nn

from unic.core.dataclass_json import from_dict, read_json
from unic.core.errors import ConfigError, WeightsError
from unic.method.config import StatisticsConfig
from unic.method.standardize import Standardizer
from unic.models.config import ENCODER_FILE, LadderConfig, StudentConfig
from unic.models.dinov2_format import dinov2_to_timm, resampling, student_config
from unic.models.ladder import Ladder
from unic.models.state_keys import below
from unic.models.student import encoder_with_weights, read_note
from unic.models.timm_encoder import TimmEncoder
from unic.models.weights import read_file, state_dict
from unic.students.heads_file import HEADS_FILE, read_heads
from unic.students.loaded_student import LoadedStudent, ladder_of, standardizers_of
from unic.students.read_run import read_config
from unic.teachers import short_name

# What the published files call their teachers, and what they are called here.
OUR_NAMES = {
    "dino_vitbase_16": "dino_vitb16",
    "ibot_vitbase_16": "ibot_vitb16",
    "deit3_vitbase_16": "deit3_vitb16",
    "dbotft_vitbase_16": "dbotft_vitb16",
    "dino2_vitgiant_14": "dinov2_vitg14_reg",
    "metaclip_vithuge_14": "metaclip_vith14",
}

# The files keep each std with 1e-6 in it, and another 1e-6 is added in dividing, which Standardizer does.
PUBLISHED_STATISTICS = StatisticsConfig(warmup_batches=0, std_floor=0.0)

# Where a checkpoint of DINO or DINOv2 keeps the backbone, beside heads that no encoder has.
_BACKBONES = ("teacher.backbone.", "backbone.")

_PROJECTOR = re.compile(r"heads\.[^.]+\.(?:cls|patch)\.([0-9]{1,4})\.layers\.([0-9]{1,4})\.(weight|bias)")


def read_published(path: Path) -> LoadedStudent:
    """The student in a file, with its ladder and statistics where they are in it.

    Raises FileNotFoundError, and WeightsError for a file that is damaged, unsafe, or no student.
    """
    content = read_file(path)
    try:
        folder = path.resolve().parent
        in_run = path.name == ENCODER_FILE and (folder / "config.json").exists()
        config = read_config(folder) if in_run else {}
        cfg = read_note(path)
        if cfg is None and in_run:
            cfg = from_dict(StudentConfig, config["student"], "student.")
        if cfg is not None:
            return _own(path, state_dict(content, path), cfg, config)
        state = _without_wrappers(content, path)
        if any(key.startswith("encoder.model.") for key in state):
            raise WeightsError(
                f"{path} is a part of a checkpoint; give the folder of the run, which has config.json"
            )
        if any(key.startswith("encoder.") for key in state):
            return _published_unic(path, state, content)
        if "mask_token" in state or "register_tokens" in state:
            return _encoder_alone(
                path, state, "DINOv2", content, _options(content) | _dimensions_beside(path)
            )
    except ConfigError as error:
        raise WeightsError(f"{path}: {error}") from error
    raise WeightsError(
        f"{path} is no student: found {len(state)} tensors ({', '.join(list(state)[:3])} ...), expected encoder.* "
        f"as in unic.pth, a backbone in DINOv2's format with its mask_token, or a file written by unic; weights of "
        f"a timm model are named file:{path}?model=<timm model>"
    )


def _own(path: Path, state: dict[str, Tensor], cfg: StudentConfig, config: dict[str, Any]) -> LoadedStudent:
    name = path.resolve().parent.name if path.name == ENCODER_FILE else path.stem
    facts = {"format": "unic encoder"}
    encoder = _encoder(cfg, state, name, path, facts)
    student = LoadedStudent(name=name, cfg=cfg, encoder=encoder, config=config, facts=facts, source=path)
    heads = path.with_name(HEADS_FILE)
    return read_heads(heads, student) if path.name == ENCODER_FILE and heads.is_file() else student


def _encoder_alone(
    path: Path, state: dict[str, Tensor], form: str, content: Any, options: dict[str, Any]
) -> LoadedStudent:
    """A ViT under DINOv2's names. form: what the file's format is called; options: of its training."""
    cfg = student_config(state, options, str(path))
    epoch = _entry(content, "epoch")
    facts = {"format": form, "epoch": epoch if type(epoch) is int else None, "args": options}
    encoder = _encoder(cfg, dinov2_to_timm(state), path.stem, path, facts)
    return LoadedStudent(name=path.stem, cfg=cfg, encoder=encoder, facts=facts, source=path)


def _published_unic(path: Path, state: dict[str, Tensor], content: Any) -> LoadedStudent:
    foreign = [key for key in state if not key.startswith(("encoder.", "lp."))]
    if foreign:
        raise WeightsError(
            f"{path} holds {foreign[0]} beside encoder.* and lp.*, which no published file does"
        )
    student = _encoder_alone(path, below("encoder.", state), "published UNIC", content, _options(content))
    projectors = below("lp.", state)
    if not projectors:
        return student
    ladder_cfg = _ladder_config(projectors, len(student.encoder.model.blocks), path)
    names = _our_names({key.split(".")[1] for key in projectors}, path)
    ours = {}
    for key, tensor in projectors.items():
        _, teacher, place = key.split(".", 2)
        ours[f"heads.{names[teacher]}.{place}"] = tensor
    ladder = ladder_of(student.encoder, ours, ladder_cfg, str(path))
    return replace(
        student,
        ladder=ladder,
        ladder_cfg=ladder_cfg,
        standardizers=_standardizers(content, ladder, names, path),
        teachers={name: name for name in ladder.widths},
    )


def _dimensions_beside(path: Path) -> dict[str, Any]:
    """What our export in DINOv2's format notes in config.json: the number of heads, which no tensor shows."""
    config = path.with_name("config.json")
    found = read_json(config) if config.is_file() else None
    heads = _entry(found, "model_args", "num_heads")
    return {"num_heads": heads} if isinstance(heads, int) else {}


def _without_wrappers(content: Any, path: Path) -> dict[str, Tensor]:
    """The tensors of a student, or of the backbone in a checkpoint of DINO's kind, under plain names."""
    if isinstance(_entry(content, "teacher"), Mapping):
        content = content["teacher"]
    state = state_dict(content, path)
    for prefix in _BACKBONES:
        if backbone := below(prefix, state):
            return backbone
    return state


def _encoder(
    cfg: StudentConfig, state: dict[str, Tensor], name: str, path: Path, facts: Mapping[str, Any]
) -> TimmEncoder:
    how = resampling(facts["format"], registers="reg_token" in state)
    return encoder_with_weights(cfg, state, name=name, origin=str(path), resampling=how)


def _ladder_config(state: Mapping[str, Tensor], num_blocks: int, path: Path) -> LadderConfig:
    hidden: dict[int, int] = {}
    layers = set()
    for key, tensor in state.items():
        found = _PROJECTOR.fullmatch(key)
        if found is None:
            raise WeightsError(
                f"{path}: lp.{key} is no part of a ladder; expected "
                f"lp.heads.<teacher>.<cls|patch>.<block>.layers.<0|2>.<weight|bias>, and no dot in <teacher>"
            )
        block, layer, kind = found.groups()
        if layer not in ("0", "2") or tensor.ndim != {"weight": 2, "bias": 1}[kind]:
            raise WeightsError(
                f"{path}: lp.{key} {tuple(tensor.shape)} belongs to a ladder with norms in it, which unic does not "
                f"have; its projectors are a matrix (0), GELU, and a matrix (2)"
            )
        hidden.setdefault(int(block), 0)
        layers.add(layer)
        if (layer, kind) == ("0", "weight"):
            hidden[int(block)] = len(tensor)
    last = num_blocks - 1
    if layers == {"0"} and set(hidden) == {last}:
        return LadderConfig(projector="linear")
    return LadderConfig(
        blocks=None if set(hidden) == set(range(num_blocks)) else tuple(sorted(hidden)),
        hidden=next((width for block, width in hidden.items() if block != last), LadderConfig.hidden),
        last_hidden=hidden.get(last, LadderConfig.last_hidden),
    )


def _our_names(published: Iterable[str], path: Path) -> dict[str, str]:
    ours = {name: OUR_NAMES.get(name, name) for name in sorted(published)}
    for name in ours:
        if short_name(name) != name or hasattr(nn.ModuleDict(), name):
            raise WeightsError(
                f"{path} has a teacher named {name!r}, which cannot name a part of a network; expected letters, "
                f"digits, - and _, and no word of torch's"
            )
    if len(set(ours.values())) < len(ours):
        raise WeightsError(
            f"{path} has a teacher twice, under its published name and ours: {', '.join(ours)}"
        )
    return ours


def _standardizers(
    content: Any, ladder: Ladder, names: Mapping[str, str], path: Path
) -> dict[str, Standardizer]:
    statistics = _entry(content, "teacher_ft_stats")
    if not isinstance(statistics, Mapping):
        raise WeightsError(
            f"{path} has a ladder but no statistics of its teachers (teacher_ft_stats), without which its output "
            f"is in no teacher's scale"
        )
    if set(statistics) != set(names):
        raise WeightsError(
            f"{path}: teacher_ft_stats is about {', '.join(map(str, statistics)) or 'no teacher'}; "
            f"expected the ladder's {', '.join(names)}"
        )
    buffers = {}
    for name, kinds in statistics.items():
        for kind, width in zip(("cls", "patch"), ladder.widths[names[name]], strict=True):
            for moment in ("mean", "std"):
                tensor = _entry(kinds, kind, moment)
                if not isinstance(tensor, Tensor) or tensor.numel() != width or tensor.shape[-1:] != (width,):
                    got = tuple(tensor.shape) if isinstance(tensor, Tensor) else "missing"
                    raise WeightsError(
                        f"{path}: the {moment} of {name}'s {kind} features in teacher_ft_stats is {got}; expected "
                        f"{width} numbers, as the ladder gives"
                    )
                buffers[f"{names[name]}.{kind}_{moment}"] = tensor.flatten()
    return standardizers_of(ladder.widths, buffers, PUBLISHED_STATISTICS, f"{path}: teacher_ft_stats")


def _entry(nested: Any, *path: str) -> Any:
    for key in path:
        nested = nested.get(key) if isinstance(nested, Mapping) else None
    return nested


def _options(content: Any) -> dict[str, Any]:
    """What the training was called with, as far as it is plain JSON: the schedules in arrays are left out."""
    args = _entry(content, "args")
    values = vars(args) if isinstance(args, argparse.Namespace) else args
    found = {}
    for name, value in values.items() if isinstance(values, Mapping) else ():
        try:
            found[str(name)] = json.loads(json.dumps(value, allow_nan=False, default=_scalar))
        except (TypeError, ValueError, RecursionError):  # no JSON
            continue
    return found


def _scalar(value: Any) -> Any:
    if isinstance(value, np.generic):
        return value.item()
    raise TypeError
