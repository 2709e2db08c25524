"""How far long work is: a bar on a terminal, a log line now and then elsewhere, both with rate and time left."""

import logging
import sys
import time
from collections.abc import Callable, Iterable, Iterator
from typing import TypeVar

from unic.core.distributed import is_main

log = logging.getLogger(__name__)

T = TypeVar("T")

SECONDS_BETWEEN_LINES = 10.0

_SHORT = {"images": "img"}


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

    unit: of what `total` counts, in words.
    size: how much of that a part is.
    done: how much was done before, which counts as done and not for the rate.
    """
    if not is_main():
        yield from parts
    elif sys.stderr.isatty():
        yield from _bar(parts, total, what, unit, size, done)
    else:
        yield from _lines(parts, total, what, unit, size, done)


def _bar(
    parts: Iterable[T], total: int, what: str, unit: str, size: Callable[[T], int], done: int
) -> Iterator[T]:
    from rich.console import Console
    from rich.markup import escape
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn(f"{{task.fields[rate]}} {_SHORT.get(unit, unit)}/s"),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=Console(stderr=True), transient=True) as progress:
        task = progress.add_task(escape(what), total=total, completed=done, rate="0")
        start, before = time.monotonic(), done
        for part in parts:
            yield part
            done += size(part)
            rate = (done - before) / max(time.monotonic() - start, 1e-6)
            progress.update(task, completed=done, rate=_number(rate))


def _lines(
    parts: Iterable[T], total: int, what: str, unit: str, size: Callable[[T], int], done: int
) -> Iterator[T]:
    start = said = time.monotonic()
    before, short = done, _SHORT.get(unit, unit)
    for part in parts:
        yield part
        done += size(part)
        now = time.monotonic()
        if now - said >= SECONDS_BETWEEN_LINES and done < total:
            said = now
            rate = (done - before) / (now - start)
            left = (total - done) / rate
            log.info(
                "%s: %d/%d %s  %s %s/s  %.0f s left", what, done, total, unit, _number(rate), short, left
            )
    seconds = max(time.monotonic() - start, 1e-6)
    count = done - before
    log.info("%s: %d %s in %.1f s  %s %s/s", what, count, unit, seconds, _number(count / seconds), short)


def _number(rate: float) -> str:
    return f"{rate:.0f}" if rate >= 10 else f"{rate:.1f}"
