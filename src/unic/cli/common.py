"""What the commands share: reading words into options, choosing between actions, and joining other processes."""

import contextlib
import logging
import sys
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeVar

import tyro
from rich.console import Console

from unic.core.errors import ConfigError
from unic.core.registry import unknown

if TYPE_CHECKING:
    import torch

Options = TypeVar("Options")


@dataclass(frozen=True, kw_only=True)
class Common:
    device: str = "auto"
    """auto: the accelerator when there is one; or a torch device such as cpu."""


def parse(options: type[Options], words: list[str], verb: str, default: Options | None = None) -> Options:
    """Words as a value of this class. Exits with code 2 and an explanation where they do not fit.

    default: where the values of options come from that are not named.
    """
    if default is None:
        return tyro.cli(options, args=words, prog=f"unic {verb}")
    return tyro.cli(options, args=words, prog=f"unic {verb}", default=default)


def run_action(
    verb: str, actions: Mapping[str, Callable[[list[str]], int]], words: list[str], usage: str
) -> int:
    """Runs the action that the first word names, with the other words; `list` when there is no word."""
    action, *rest = words or ["list"]
    if action in ("-h", "--help"):
        print(usage)
        return 0
    if action not in actions:
        raise ConfigError(unknown(f"action of unic {verb}", action, actions))
    if action != "list":
        return actions[action](rest)
    if rest in (["-h"], ["--help"]):
        print(f"unic {verb} list takes no options")
        return 0
    if rest:
        raise ConfigError(f"unic {verb} list takes no more words, got {' '.join(rest)!r}")
    return actions[action]([])


def console() -> Console:
    """As wide as the terminal; 160 columns in a file or a pipe."""
    return Console(width=None if sys.stdout.isatty() else 160)


@contextlib.contextmanager
def process_group(device: str) -> "Iterator[torch.device]":
    """Joins other processes, and lets the main one talk: the others only warn."""
    from unic.core import distributed

    with distributed.process_group(device) as chosen:
        logging.basicConfig(
            level=logging.WARNING,  # of other libraries
            format="%(asctime)s %(message)s"
            if distributed.world_size() == 1
            else f"%(asctime)s [{distributed.rank()}] %(message)s",
            datefmt="%H:%M:%S",
            force=True,
        )
        logging.getLogger("unic").setLevel(logging.INFO if distributed.is_main() else logging.WARNING)
        yield chosen
