"""Weights to files and back, without running code from them, and loaded strictly."""

import argparse
import collections
import hashlib
import pickle
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy._core import multiarray
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from unic.core.errors import WeightsError, first_line
from unic.models.state_keys import renamed as renamed

# Where common training scripts keep the weights inside their checkpoint, and how wrappers of modules prefix names.
_WRAPPERS = ("model", "state_dict")
_PREFIXES = ("module.", "_orig_mod.")

# What training scripts put beside the tensors and what is harmless to rebuild: options, counters, numpy schedules.
_ALLOWED = [
    argparse.Namespace,
    collections.OrderedDict,
    # torch refuses to fill a defaultdict; a plain one does, and what it would have made by default plays no part.
    (lambda *_: {}, "collections.defaultdict"),
    *(int, float, list, dict),
    np.ndarray,
    np.dtype,
    *(
        type(np.dtype(kind))
        for kind in ("bool", "i1", "i2", "i4", "i8", "u1", "u2", "u4", "u8", "f2", "f4", "f8")
    ),
    # numpy renamed its private module in version 2; files name either.
    *(
        (getattr(multiarray, function), f"numpy.{module}.multiarray.{function}")
        for function in ("_reconstruct", "scalar")
        for module in ("core", "_core")
    ),
]


def read_weights(path: Path) -> dict[str, Tensor]:
    """The tensors of a safetensors file, or of a torch file as training scripts write them, under plain names.

    Raises FileNotFoundError, and WeightsError for a damaged file or one that would have to run code to be read.
    """
    return state_dict(read_file(path), path)


def read_file(path: Path) -> Any:
    """All that a safetensors or torch file holds, without running code from it. Raises as `read_weights`."""
    if not path.is_file():
        raise FileNotFoundError(f"no weights at {path}")
    try:
        if path.suffix == ".safetensors":
            return load_file(path)
        with torch.serialization.safe_globals(_ALLOWED):
            return torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        start = path.read_bytes()[:16]
        if not start.startswith((b"PK", b"\x80")):
            raise WeightsError(f"{path} is no file of weights: it starts with {start!r}") from error
        named = re.search(r"GLOBAL ([\w.]+)|got <class '([\w.]+)'>", str(error))
        what = f" ({named.group(1) or named.group(2)})" if named else ""
        raise WeightsError(
            f"{path} holds Python objects besides tensors{what}, which unic does not unpickle; "
            f"save its state dict as safetensors"
        ) from error
    except (
        SafetensorError, RuntimeError, ValueError, EOFError, LookupError, TypeError, AttributeError, AssertionError,
        OSError, MemoryError,
    ) as error:  # fmt: skip
        raise WeightsError(f"{path} is no readable file of weights ({first_line(error)})") from error


def state_dict(content: Any, path: Path) -> dict[str, Tensor]:
    """The names and tensors inside a file's content, out of its wrappers."""
    for wrapper in _WRAPPERS:
        if isinstance(content, Mapping) and isinstance(content.get(wrapper), Mapping):
            content = content[wrapper]
    if not isinstance(content, Mapping) or not all(
        isinstance(key, str) and isinstance(value, Tensor) for key, value in content.items()
    ):
        raise WeightsError(
            f"{path} holds no state dict (expected names and tensors, got {type(content).__name__})"
        )
    empty = [key for key, tensor in content.items() if tensor.is_meta]
    if empty:
        raise WeightsError(f"{path} holds tensors without values: {', '.join(empty[:10])}")
    for prefix in _PREFIXES:
        if all(key.startswith(prefix) for key in content):
            content = {key.removeprefix(prefix): tensor for key, tensor in content.items()}
    return dict(content)


def read_metadata(path: Path) -> dict[str, str]:
    """The notes in the header of a safetensors file; none for other files."""
    if path.suffix != ".safetensors":
        return {}
    try:
        with safe_open(path, "pt") as file:
            return file.metadata() or {}
    except SafetensorError as error:
        raise WeightsError(f"{path} is no readable file of weights ({error})") from error


def write_weights(
    path: Path, tensors: Mapping[str, Tensor], metadata: Mapping[str, str] | None = None
) -> None:
    """Writes a safetensors file. Raises OSError for a full disk, which safetensors reports as an error of its own."""
    try:
        own = {name: tensor.detach().contiguous() for name, tensor in tensors.items()}
        save_file(own, path, dict(metadata) if metadata else None)
    except SafetensorError as error:
        raise OSError(f"{path}: {error}") from error
    path.chmod(0o644)  # safetensors writes files that nobody else can read


def hash_module(module: nn.Module, *facts: object) -> str:
    """sha256 of the names, shapes, types and values of all tensors of a module, and of `facts` as they are printed."""
    digest = hashlib.sha256(repr(facts).encode())
    for key, tensor in sorted(module.state_dict().items()):
        digest.update(f"{key} {tuple(tensor.shape)} {tensor.dtype}".encode())
        digest.update(tensor.detach().cpu().contiguous().flatten().view(torch.uint8).numpy())
    return digest.hexdigest()


def load_strictly(
    model: nn.Module, state: Mapping[str, Tensor], origin: str, *, assign: bool = False
) -> None:
    """Loads `state` into `model`, in its precision; on any mismatch raises WeightsError, with `model` untouched.

    assign: the model takes the tensors themselves, as one built on the meta device needs.
    """
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
    model.load_state_dict({key: tensor.to(own[key].dtype) for key, tensor in state.items()}, assign=assign)
