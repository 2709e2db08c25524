"""SIGTERM, SIGINT and SIGHUP set a flag; the loop reads it between steps and leaves with a checkpoint."""

import contextlib
import logging
import signal
from collections.abc import Callable, Iterator

log = logging.getLogger(__name__)


@contextlib.contextmanager
def stop_requested() -> Iterator[Callable[[], bool]]:
    """Gives a function that says whether a signal has arrived; a second signal interrupts at once."""
    received = []

    def handle(number: int, frame: object) -> None:
        if received:
            raise KeyboardInterrupt
        received.append(number)
        log.warning("%s: stopping at the end of this step, with a checkpoint", signal.Signals(number).name)

    numbers = [signal.SIGTERM, signal.SIGINT]
    if signal.getsignal(signal.SIGHUP) is not signal.SIG_IGN:  # nohup
        numbers.append(signal.SIGHUP)
    before = [signal.signal(number, handle) for number in numbers]
    try:
        yield lambda: bool(received)
    finally:
        for number, handler in zip(numbers, before, strict=True):
            signal.signal(number, handler)
