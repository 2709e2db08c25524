"""How far long work is: a bar on a terminal, a log line now and then elsewhere, both with rate and time left."""

import contextlib
import datetime
import logging
import sys
import time
from collections.abc import Callable, Iterable, Iterator
from typing import TypeVar

log = logging.getLogger(__name__)

T = TypeVar("T")
Amount = int | float

SECONDS_BETWEEN_LINES = 10.0

_SHORT = {"images": "img"}


class Bar:
    """A bar and a text on a terminal, until it is closed; nothing where stderr is no terminal."""

    def __init__(self, what: str):
        self._bar = None
        if sys.stderr.isatty():
            from rich.console import Console
            from rich.markup import escape
            from rich.progress import BarColumn, Progress, TextColumn

            columns = (TextColumn("{task.description}"), BarColumn(), TextColumn("{task.fields[text]}"))
            self._bar = Progress(*columns, console=Console(stderr=True), transient=True)
            self._task = self._bar.add_task(escape(what), total=None, text="")
            self._bar.start()

    def close(self) -> None:
        if self._bar:
            self._bar.stop()

    @property
    def is_shown(self) -> bool:
        """Whether there is a terminal; without one, the log has to say it."""
        return self._bar is not None

    def draw(self, done: Amount, total: Amount | None, text: str) -> None:
        if self._bar:
            self._bar.update(self._task, completed=done, total=total, text=text)


class Progress(Bar):
    """Draws the bar, or logs a line every `SECONDS_BETWEEN_LINES`, with the rate since the start and the time left.

    unit: of what is counted, in words.
    done: how much was done before, which counts as done and not for the rate.
    """

    def __init__(self, what: str, unit: str, done: Amount = 0):
        super().__init__(what)
        self._what, self._unit = what, unit
        self._start = self._last_line = time.monotonic()
        self._before = self._done = done

    def update(self, done: Amount, total: Amount | None) -> None:
        """total: None where it is not known."""
        now = time.monotonic()
        if done < self._done:  # it had to begin again
            self._start, self._before = now, done
        self._done = done
        rate = self._rate(now)
        text = f"{_count(done)}{f'/{_count(total)}' if total else ''} {self._unit}  {self._per_second(rate)}"
        if total and rate:
            text += f"  {time_left((total - done) / rate)}"
        self.draw(done, total, text)
        if not self.is_shown and now - self._last_line >= SECONDS_BETWEEN_LINES:
            log.info("%s: %s", self._what, text)
            self._last_line = now

    def log_end(self) -> None:
        """Logs how much was done, in how long."""
        now = time.monotonic()
        amount, rate = f"{_count(self._done - self._before)} {self._unit}", self._per_second(self._rate(now))
        log.info("%s: %s in %.1f s  %s", self._what, amount, now - self._start, rate)

    def _rate(self, now: float) -> float:
        return (self._done - self._before) / max(now - self._start, 1e-6)

    def _per_second(self, rate: float) -> str:
        return f"{rate:.{0 if rate >= 10 else 1}f} {_SHORT.get(self._unit, self._unit)}/s"


def with_progress(
    parts: Iterable[T],
    total: int,
    what: str,
    *,
    unit: str = "images",
    size: Callable[[T], int] = lambda part: 1,
    done: int = 0,
) -> Iterator[T]:
    """Hands on the parts and shows how much is done, rate and time left; on the main process only.

    unit, done: as for `Progress`.
    size: how much a part is of what `total` counts.
    """
    from unic.core.distributed import is_main  # imports torch, which `unic teachers list` does without

    if not is_main():
        yield from parts
        return
    with contextlib.closing(Progress(what, unit, done)) as progress:
        for part in parts:
            yield part
            done += size(part)
            progress.update(done, total)
    if not progress.is_shown:
        progress.log_end()


def time_left(seconds: float) -> str:
    """ "75 s left"; from two minutes on in hours, minutes and seconds: "0:02:05 left"."""
    if seconds < 120:
        return f"{seconds:.0f} s left"
    return f"{datetime.timedelta(seconds=round(seconds))} left"


def _count(amount: Amount) -> str:
    return f"{amount:.1f}" if isinstance(amount, float) else str(amount)
