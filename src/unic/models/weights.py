"""Weights to files and back, without running code from them, and loaded strictly."""

import pickle
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from unic.errors import WeightsError

# Where common training scripts keep the weights inside their checkpoint.
_WRAPPERS = ("model", "state_dict")


def read_weights(path: Path) -> dict[str, Tensor]:
    """The tensors of a safetensors file, or of a torch file that holds nothing but tensors and plain values.

    Raises FileNotFoundError, and WeightsError for a damaged file or one that would have to run code to be read.
    """
    if not path.is_file():
        raise FileNotFoundError(f"no weights at {path}")
    try:
        if path.suffix == ".safetensors":
            return load_file(path)
        content = torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        start = path.read_bytes()[:16]
        if not start.startswith((b"PK", b"\x80")):
            raise WeightsError(f"{path} is no file of weights: it starts with {start!r}") from error
        named = re.search(r"GLOBAL ([\w.]+)", str(error))
        what = f" ({named.group(1)})" if named else ""
        raise WeightsError(
            f"{path} holds Python objects besides tensors{what}, which unic does not unpickle; "
            f"save its state dict as safetensors"
        ) from error
    except (SafetensorError, RuntimeError, ValueError, EOFError, KeyError, TypeError, OSError) as error:
        first_line = (str(error).splitlines() or [type(error).__name__])[0]
        raise WeightsError(f"{path} is no readable file of weights ({first_line})") from error
    return _state_dict(content, path)


def write_weights(path: Path, tensors: Mapping[str, Tensor]) -> None:
    """Writes a safetensors file. Raises OSError for a full disk, which safetensors reports as an error of its own."""
    try:
        save_file({name: tensor.detach().contiguous() for name, tensor in tensors.items()}, path)
    except SafetensorError as error:
        raise OSError(f"{path}: {error}") from error
    path.chmod(0o644)  # safetensors writes files that nobody else can read


def load_strictly(model: nn.Module, state: Mapping[str, Tensor], origin: str) -> None:
    """Loads `state` into `model`; on any mismatch raises WeightsError, with `model` untouched."""
    own = model.state_dict()
    shapes = [
        f"{key} is {tuple(state[key].shape)}, expected {tuple(tensor.shape)}"
        for key, tensor in own.items()
        if key in state and state[key].shape != tensor.shape
    ]
    problems = [
        f"{len(keys)} {what}: {', '.join(keys[:10])}{' ...' if len(keys) > 10 else ''}"
        for what, keys in (
            ("missing", [key for key in own if key not in state]),
            ("unexpected", [key for key in state if key not in own]),
            ("of another shape", shapes),
        )
        if keys
    ]
    if problems:
        raise WeightsError(f"{origin} holds weights of another architecture: {'; '.join(problems)}")
    for key, tensor in state.items():
        if tensor.is_floating_point() and not torch.isfinite(tensor).all():
            raise WeightsError(f"{origin}: {key} has infinite or undefined values")
    model.load_state_dict(state)


def _state_dict(content: Any, path: Path) -> dict[str, Tensor]:
    for wrapper in _WRAPPERS:
        if isinstance(content, Mapping) and isinstance(content.get(wrapper), Mapping):
            content = content[wrapper]
    if not isinstance(content, Mapping) or not all(isinstance(value, Tensor) for value in content.values()):
        raise WeightsError(
            f"{path} holds no state dict (expected names and tensors, got {type(content).__name__})"
        )
    return dict(content)
