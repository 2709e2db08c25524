"""Locks between processes: of a run folder, which is refused while another holds it, and of downloads, which wait."""

import contextlib
import logging
import os
import socket
import time
from collections.abc import Iterator
from pathlib import Path

from filelock import FileLock, Timeout

from unic.core.errors import ConfigError

log = logging.getLogger(__name__)

# A process that was killed keeps its lock until the data workers it forked are gone too, a moment later.
_PATIENCE_SECONDS = 5.0
_BEFORE_A_MESSAGE_SECONDS = 0.2


@contextlib.contextmanager
def refuse_if_locked(path: Path, what: str) -> Iterator[None]:
    """Holds the lock for the length of the block; ConfigError that names the holder when another process has it."""
    lock = FileLock(path)
    try:
        lock.acquire(timeout=_PATIENCE_SECONDS)
    except Timeout as error:
        holder = path.read_text(errors="replace").strip() if path.exists() else ""
        raise ConfigError(f"{what} is in use by {holder or 'another process'}") from error
    except OSError as error:
        raise ConfigError(f"{what} cannot be written to ({error.strerror}); give another folder") from error
    try:
        path.write_text(f"process {os.getpid()} on {socket.gethostname()} since {time.strftime('%F %T')}\n")
        yield
    finally:
        lock.release()


@contextlib.contextmanager
def wait_until_unlocked(path: Path, message: str) -> Iterator[None]:
    """Holds the lock for the length of the block. While another process has it, waits and logs `message`."""
    lock = FileLock(path)
    try:
        lock.acquire(timeout=_BEFORE_A_MESSAGE_SECONDS)
    except Timeout:
        log.info("%s", message)
        lock.acquire()
    try:
        yield
    finally:
        lock.release()
