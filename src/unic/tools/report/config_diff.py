"""What several configurations or environments share, and in what they differ."""

from collections.abc import Mapping, Sequence
from typing import Any

MISSING = "(not there)"


def flat(values: Mapping[str, Any], where: str = "") -> dict[str, Any]:
    """Leaves by path: {"data": {"views": {"flip": 0.5}}} gives {"data.views.flip": 0.5}. Lists are leaves."""
    leaves = {}
    for name, value in values.items():
        if isinstance(value, Mapping) and value:
            leaves |= flat(value, f"{where}{name}.")
        else:
            leaves[f"{where}{name}"] = value
    return leaves


def split_by_difference(
    several: Sequence[Mapping[str, Any]],
) -> tuple[dict[str, Any], dict[str, list[Any]]]:
    """Leaves that are the same everywhere, and those that differ, with a value (or MISSING) for each of `several`."""
    flats = [flat(one) for one in several]
    names = dict.fromkeys(name for leaves in flats for name in leaves)
    shared, differing = {}, {}
    for name in names:
        values = [leaves.get(name, MISSING) for leaves in flats]
        if all(value == values[0] for value in values):
            shared[name] = values[0]
        else:
            differing[name] = values
    return shared, differing
