"""Results that took time, kept by content: written whole or not at all, and never read when they are damaged."""

import contextlib
import hashlib
import json
import logging
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, TypeVar

from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from unic.core.dataclass_json import read_json
from unic.core.errors import ConfigError, WeightsError
from unic.core.files import check_folder, remove_folder, write_folder, write_json

log = logging.getLogger(__name__)

T = TypeVar("T")

_TENSORS = "tensors.safetensors"
_FACTS = "facts.json"


def content_key(facts: Mapping[str, Any]) -> str:
    """The name of what depends on these facts and nothing else: their sha256, whatever their order."""
    return hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()


def save_artifact(folder: Path, what: str, tensors: Mapping[str, Tensor], facts: Mapping[str, Any]) -> None:
    """Writes a folder; what cannot be written is a warning, because a full disk does not make a result wrong.

    what: in words, for the warning.
    """

    def fill(temporary: Path) -> None:
        save_file({name: tensor.contiguous() for name, tensor in tensors.items()}, temporary / _TENSORS)
        write_json(temporary / _FACTS, facts)

    try:
        write_folder(folder, fill)
    except (OSError, SafetensorError) as error:
        if not folder.exists():  # another process may have kept the same first
            log.warning("%s not kept for next time: %s", what, error)


def load_artifact(folder: Path, what: str, make: Callable[[dict[str, Tensor], Any], T]) -> T | None:
    """What `make` makes of kept tensors and facts; None when there are none, or damaged ones, which are removed.

    make: raises WeightsError, KeyError or TypeError for tensors and facts that are not what they should be.
    """
    if not folder.exists():
        return None
    try:
        check_folder(folder)
        return make(load_file(folder / _TENSORS), read_json(folder / _FACTS))
    except (WeightsError, ConfigError, SafetensorError, OSError, KeyError, TypeError) as error:
        log.warning("%s removed and computed again: %s", what, error)
        with contextlib.suppress(FileNotFoundError):  # another process was first
            remove_folder(folder)
        return None
