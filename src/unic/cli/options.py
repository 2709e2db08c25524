"""What the verbs share: reading words into options, and joining other processes."""

import contextlib
import logging
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from unic.core.errors import ConfigError

if TYPE_CHECKING:
    import torch


@dataclass(frozen=True, kw_only=True)
class Common:
    device: str = "auto"
    """auto: the accelerator when there is one; or a torch device such as cpu."""


def parse(options: type, words: list[str], verb: str) -> Any:
    import tyro

    return tyro.cli(options, args=words, prog=f"unic {verb}")


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


def expect_list(words: list[str], verb: str) -> None:
    if words not in ([], ["list"]):
        raise ConfigError(f"unic {verb} takes the word `list`, got {' '.join(words)!r}")
