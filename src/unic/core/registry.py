"""Registries that fill themselves: adding a teacher, a data set or an evaluation means adding one file.

The modules beside a registry are imported when it is first asked; a file outside the package joins through
`--plugin my.py`, which is run as the Python code it is (only give it files you trust).
"""

import difflib
import hashlib
import importlib
import importlib.util
import os
import pkgutil
import sys
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any, Generic, TypeVar

from unic.core.errors import ConfigError

T = TypeVar("T")

# Up to so many known names are listed in a sentence about an unknown one.
_MOST_LISTED = 12


class Registry(Generic[T]):
    """Names and what they stand for; looking up an unknown name says which known ones are nearest."""

    def __init__(self, noun: str, package: str, *, list_command: str | None = None):
        """package: imported with every module in it, or a single module. list_command: shows users all names."""
        self.noun = noun
        self._package = package
        self._list_command = list_command
        self._entries: dict[str, T] = {}
        self._is_importing = False
        self._is_complete = False

    def add(self, name: str, entry: T) -> T:
        if name in self._entries:
            raise ConfigError(f"two definitions of the {self.noun} {name!r}; give yours another name")
        self._entries[name] = entry
        return entry

    def __getitem__(self, name: str) -> T:
        self._import_siblings()
        if name not in self._entries:
            raise ConfigError(unknown(self.noun, name, self._entries, list_command=self._list_command))
        return self._entries[name]

    def __contains__(self, name: object) -> bool:
        self._import_siblings()
        return name in self._entries

    def __iter__(self) -> Iterator[str]:
        self._import_siblings()
        return iter(sorted(self._entries))

    def _import_siblings(self) -> None:
        """Imports every module of the package, once. One that fails adds nothing, and fails again next time."""
        if self._is_complete or self._is_importing:  # a sibling may look up the entries of those before it
            return
        self._is_importing = True
        try:
            package = importlib.import_module(self._package)
            for module in pkgutil.iter_modules(getattr(package, "__path__", ())):
                self._import_sibling(f"{self._package}.{module.name}")
            self._is_complete = True
        finally:
            self._is_importing = False

    def _import_sibling(self, name: str) -> None:
        entries = dict(self._entries)
        try:
            importlib.import_module(name)
        except BaseException:
            self._entries = entries
            raise


def on_demand(name: str) -> Callable[..., Any]:
    """The function "package.module:function"; its module is imported when it is first called."""
    return lambda *arguments: pkgutil.resolve_name(name)(*arguments)


def import_plugin(path: Path) -> None:
    """Runs a user's file, which adds to a registry by itself; once, however often and in whichever way it is named."""
    if not path.is_file():
        raise ConfigError(f"--plugin {path}: no such file; wanted a Python file")
    # By the whole path: two folders may have files of one name.
    name = f"unic_plugin_{hashlib.sha256(os.fsencode(path.resolve())).hexdigest()[:16]}"
    if name in sys.modules:
        return
    spec = importlib.util.spec_from_file_location(name, path)
    if spec is None or spec.loader is None:
        raise ConfigError(f"--plugin {path}: not a Python file (its name must end in .py)")
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    try:
        spec.loader.exec_module(module)
    except (Exception, SystemExit) as error:
        del sys.modules[name]
        raise ConfigError(f"--plugin {path}: {type(error).__name__}: {error}") from error


def unknown(noun: str, name: str, known: Iterable[str], *, list_command: str | None = None) -> str:
    """The sentence for a name that does not exist: the nearest ones, or all when none is near and they are few.

    list_command: what shows all names, for people; named when there are too many for a sentence.
    """
    known = sorted(known)
    near = difflib.get_close_matches(name, known, n=3, cutoff=0.5)
    if near:
        return f"unknown {noun} {name!r}; did you mean {' or '.join(near)}?"
    if len(known) <= _MOST_LISTED:
        return f"unknown {noun} {name!r}; known: {', '.join(known) or 'none'}"
    listing = f"; `{list_command}` lists them" if list_command else ""
    return f"unknown {noun} {name!r}, and none of the {len(known):,} known ones is near{listing}"
