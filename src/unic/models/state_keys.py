"""The keys of state dicts: dictionaries in, dictionaries out. Importing this does not import torch."""

import re
from collections.abc import Mapping
from typing import TypeVar

Value = TypeVar("Value")


def below(prefix: str, state: Mapping[str, Value]) -> dict[str, Value]:
    """The tensors whose keys begin with `prefix`, without it."""
    return {key.removeprefix(prefix): tensor for key, tensor in state.items() if key.startswith(prefix)}


def renamed(state: Mapping[str, Value], names: Mapping[str, str]) -> dict[str, Value]:
    """The same tensors; in every key each regular expression of `names` is replaced."""
    result = {}
    for key, tensor in state.items():
        for pattern, name in names.items():
            key = re.sub(pattern, name, key)
        result[key] = tensor
    return result
