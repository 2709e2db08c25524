"""Frozen dataclasses to JSON and back, strictly: an unknown field or a wrong type is an error that names it."""

import dataclasses
import json
import math
import types
import typing
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Literal, TypeVar

from unic.core.errors import ConfigError
from unic.core.registry import unknown

T = TypeVar("T")


def to_dict(config: Any) -> dict[str, Any]:
    """Nested dataclasses as plain JSON values (tuples become lists)."""
    return json.loads(json.dumps(dataclasses.asdict(config)))


def from_dict(kind: type[T], values: Any, where: str = "") -> T:
    """Builds the dataclass `kind` from what `to_dict` wrote.

    Fields left out take their defaults, so a file written by an earlier version still loads. A dataclass whose values
    were spelled otherwise before says so: `OLD_VALUES: ClassVar = {field: {old: new}}`.
    Raises ConfigError naming the field, what was found and what was expected.
    """
    if not isinstance(values, dict):
        raise ConfigError(f"{where or kind.__name__}: expected an object with named fields, got {values!r}")
    hints = typing.get_type_hints(kind)
    known = {field.name for field in dataclasses.fields(typing.cast(Any, kind))}
    for name in values:
        if name not in known:
            raise ConfigError(unknown("field", f"{where}{name}", [f"{where}{other}" for other in known]))
    for field in dataclasses.fields(typing.cast(Any, kind)):
        required = field.default is dataclasses.MISSING and field.default_factory is dataclasses.MISSING
        if required and field.name not in values:
            raise ConfigError(f"{where}{field.name}: missing, and it has no default")
    old_values = getattr(kind, "OLD_VALUES", {})
    return kind(
        **{
            name: _value(hints[name], _spelled_now(value, old_values.get(name, {})), f"{where}{name}")
            for name, value in values.items()
        }
    )


def _spelled_now(value: Any, old_values: Mapping[str, str]) -> Any:
    return old_values.get(value, value) if isinstance(value, str) else value


def _value(kind: Any, value: Any, where: str) -> Any:
    origin, arguments = typing.get_origin(kind), typing.get_args(kind)
    if dataclasses.is_dataclass(kind):
        return from_dict(typing.cast(type, kind), value, f"{where}.")
    if origin is typing.Annotated:
        return _value(arguments[0], value, where)
    if origin in (typing.Union, types.UnionType):
        if value is None and type(None) in arguments:
            return None
        (kind,) = [argument for argument in arguments if argument is not type(None)]
        return _value(kind, value, where)
    if origin is Literal:
        if value not in arguments:
            raise ConfigError(f"{where}: expected one of {', '.join(map(str, arguments))}, got {value!r}")
        return value
    if origin is tuple and isinstance(value, list):
        if arguments[-1] is Ellipsis:
            return tuple(_value(arguments[0], item, f"{where}[{i}]") for i, item in enumerate(value))
        if len(value) == len(arguments):
            return tuple(
                _value(a, item, f"{where}[{i}]")
                for i, (a, item) in enumerate(zip(arguments, value, strict=True))
            )
    if kind is float and isinstance(value, int | float) and not isinstance(value, bool):
        return float(value)
    if type(value) is kind:
        return value
    expected = kind.__name__ if isinstance(kind, type) else str(kind)
    raise ConfigError(f"{where}: expected {expected}, got {value!r}")


def read_json(path: Path) -> Any:
    """Reads a JSON file; ConfigError with the line and column when it is damaged."""
    try:
        return json.loads(path.read_text())
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path}: not a JSON file ({error})") from error


def check_finite(config: dict[str, Any], where: str = "") -> None:
    """Raises ConfigError for a number that is infinite or not a number, naming its field."""
    for name, value in config.items():
        if isinstance(value, dict):
            check_finite(value, f"{where}{name}.")
        for number in value if isinstance(value, list | tuple) else [value]:
            if isinstance(number, float) and not math.isfinite(number):
                raise ConfigError(f"{where}{name}: expected a finite number, got {number}")


def differences(old: Any, new: Any, where: str = "") -> Iterator[str]:
    """One line for each leaf in which two `to_dict` results differ."""
    if isinstance(old, dict) and isinstance(new, dict):
        for name in old.keys() | new.keys():
            yield from differences(old.get(name), new.get(name), f"{where}.{name}" if where else name)
    elif old != new:
        yield f"{where}: {json.dumps(old)} there, {json.dumps(new)} asked for"
