"""The state of a run as a folder: safetensors, JSON, and a manifest written last. No pickle, no random state.

step-00000100/ model.safetensors  optimizer.safetensors  statistics.safetensors  meta.json  manifest.json
"""

import contextlib
import logging
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file
from torch import Tensor, nn

from unic.core.dataclass_json import from_dict, read_json
from unic.core.errors import ConfigError
from unic.core.files import MANIFEST, newest_valid, remove_folder, write_folder, write_json
from unic.method.standardize import Standardizer
from unic.models.student import Student
from unic.models.weights import load_strictly, write_weights
from unic.train.init_from import InitRecord

log = logging.getLogger(__name__)


@dataclass
class TrainState:
    """What changes while a run goes on, and what it began with.

    step: steps done; metric_sums: since the last line of the log; start: None for fresh weights.
    """

    student: Student
    standardizers: dict[str, Standardizer]
    optimizer: torch.optim.AdamW
    metric_sums: Tensor
    step: int = 0
    start: InitRecord | None = None


def save_checkpoint(parent: Path, state: TrainState, *, identity: dict[str, Any], keep: int) -> Path:
    """Writes the newest checkpoint, then removes all but the `keep` newest. identity: of teachers and images."""
    folder = parent / f"step-{state.step:08d}"
    if not folder.exists():
        write_folder(folder, lambda temporary: _write(temporary, state, identity))
    for old in sorted(parent.glob("step-" + "[0-9]" * 8))[:-keep]:
        remove_folder(old)
    return folder


def load_checkpoint(parent: Path, state: TrainState, *, set_aside: bool) -> dict[str, Any] | None:
    """Brings `state` to the newest valid checkpoint and gives its meta data; None when there is none."""
    folder = newest_valid(parent, set_aside=set_aside)
    if folder is None:
        return None
    refuse_imported(parent.parent)
    load_strictly(state.student, load_file(folder / "model.safetensors"), str(folder))
    statistics = load_file(folder / "statistics.safetensors")
    state.metric_sums = statistics.pop("window").to(state.metric_sums.device)
    load_strictly(nn.ModuleDict(state.standardizers), statistics, str(folder))
    _load_optimizer(state, load_file(folder / "optimizer.safetensors"))
    meta = read_json(folder / "meta.json")
    state.step = meta["step"]
    start = meta.get("start")
    state.start = None if start is None else from_dict(InitRecord, start, "start.")
    return meta


def refuse_imported(run: Path) -> None:
    """Raises ConfigError for the run folder of an imported student: there is nothing in it to go on with."""
    for checkpoint in (run / "checkpoints").glob("step-*"):
        if (checkpoint / "optimizer.safetensors").exists():
            continue
        # What is damaged is no imported one, and for `newest_valid` to judge.
        with contextlib.suppress(ConfigError, OSError):
            if "optimizer.safetensors" not in read_json(checkpoint / MANIFEST):
                break
    else:
        return
    raise ConfigError(
        f"{run} holds an imported student, without the optimiser's state that a run needs to go on; begin a new run "
        f"with it: --start {run} --out ANOTHER_FOLDER"
    )


def checkpoint_bytes(student: nn.Module) -> int:
    """Size of a checkpoint: weights and the two moments of AdamW."""
    return 3 * sum(parameter.numel() * parameter.element_size() for parameter in student.parameters())


def _write(folder: Path, state: TrainState, identity: dict[str, Any]) -> None:
    write_weights(folder / "model.safetensors", state.student.state_dict())
    statistics = {**nn.ModuleDict(state.standardizers).state_dict(), "window": state.metric_sums}
    write_weights(folder / "statistics.safetensors", statistics)
    write_weights(folder / "optimizer.safetensors", _optimizer_tensors(state))
    start = None if state.start is None else asdict(state.start)
    write_json(folder / "meta.json", {"step": state.step, "start": start, **identity})


def _optimizer_tensors(state: TrainState) -> dict[str, Tensor]:
    """AdamW's tensors, named by parameter: independent of the order of parameters and groups."""
    return {
        f"{kind}/{name}": value
        for name, parameter in state.student.named_parameters()
        for kind, value in state.optimizer.state.get(parameter, {}).items()
    }


def _load_optimizer(state: TrainState, tensors: dict[str, Tensor]) -> None:
    parameters = dict(state.student.named_parameters())
    state.optimizer.state.clear()
    for key, tensor in tensors.items():
        kind, _, name = key.partition("/")
        # AdamW's fused form wants the step count beside the parameter.
        state.optimizer.state[parameters[name]][kind] = tensor.to(parameters[name].device)
