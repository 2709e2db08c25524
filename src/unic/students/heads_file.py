"""The ladder and statistics of a student in one safetensors file, beside its encoder."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

from torch import nn

from unic.core.dataclass_json import from_dict, to_dict
from unic.core.errors import WeightsError
from unic.method.config import StatisticsConfig
from unic.models.config import LadderConfig
from unic.models.state_keys import below
from unic.models.weights import read_metadata, read_weights, write_weights
from unic.students.loaded_student import LoadedStudent, ladder_of, standardizers_of

HEADS_FILE = "heads.safetensors"
_NOTE = "unic.heads"


def write_heads(path: Path, student: LoadedStudent, head: str | None) -> None:
    """Those of all teachers, or of `head` alone: ladder.heads.<teacher>..., statistics.<teacher>.<cls_mean ...>."""
    assert student.ladder is not None, "a student without ladder has no heads"
    teachers = list(student.standardizers) if head is None else [head]
    own = {name: student.standardizers[name] for name in teachers}
    ladder = {k: v for k, v in student.ladder.state_dict().items() if k.split(".")[1] in own}
    tensors = {f"ladder.{key}": tensor for key, tensor in ladder.items()}
    tensors |= {f"statistics.{k}": v for k, v in nn.ModuleDict(dict(own)).state_dict().items()}
    note = {
        "ladder": to_dict(student.ladder_cfg),
        "statistics": to_dict(own[teachers[0]].cfg),
        "teachers": {name: student.teachers.get(name) for name in teachers},
    }
    write_weights(path, tensors, {_NOTE: json.dumps(note)})


def read_heads(path: Path, student: LoadedStudent) -> LoadedStudent:
    """The student with its ladder, statistics and teachers, which `write_heads` wrote."""
    tensors = read_weights(path)
    text = read_metadata(path).get(_NOTE)
    if text is None:
        raise WeightsError(f"{path} is no file of heads: its header has no {_NOTE}")
    try:
        note: dict[str, Any] = json.loads(text)
        cfg = from_dict(LadderConfig, note["ladder"], "ladder.")
        statistics = from_dict(StatisticsConfig, note["statistics"], "statistics.")
        references = {
            name: reference for name, reference in note["teachers"].items() if reference is not None
        }
    except (ValueError, LookupError, TypeError, AttributeError) as error:
        raise WeightsError(f"{path}: the note on its heads is damaged ({error})") from error
    for key in tensors:
        if not key.startswith(("ladder.", "statistics.")):
            raise WeightsError(f"{path} holds {key}, which is neither a ladder's nor a statistic")
    ladder = ladder_of(student.encoder, below("ladder.", tensors), cfg, str(path))
    standardizers = standardizers_of(ladder.widths, below("statistics.", tensors), statistics, str(path))
    return replace(student, ladder=ladder, ladder_cfg=cfg, standardizers=standardizers, teachers=references)
