"""How far the work on a list of images is: a bar on a terminal, a log line now and then elsewhere."""

import logging
import sys
import time
from collections.abc import Iterable, Iterator

from unic.parallel import is_main
from unic.tokens import Batch

log = logging.getLogger(__name__)

SECONDS_BETWEEN_LINES = 10.0


def with_progress(batches: Iterable[Batch], num_images: int, what: str) -> Iterator[Batch]:
    """Hands on the batches and shows images done, rate and time left; on the main process only."""
    if not is_main():
        yield from batches
    elif sys.stderr.isatty():
        yield from _bar(batches, num_images, what)
    else:
        yield from _lines(batches, num_images, what)


def _bar(batches: Iterable[Batch], num_images: int, what: str) -> Iterator[Batch]:
    from rich.console import Console
    from rich.markup import escape
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("{task.fields[rate]:.0f} img/s"),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=Console(stderr=True), transient=True) as progress:
        task = progress.add_task(escape(what), total=num_images, rate=0.0)
        start = time.monotonic()
        done = 0
        for batch in batches:
            yield batch
            done += len(batch.index)
            progress.update(task, completed=done, rate=done / max(time.monotonic() - start, 1e-6))


def _lines(batches: Iterable[Batch], num_images: int, what: str) -> Iterator[Batch]:
    start = said = time.monotonic()
    done = 0
    for batch in batches:
        yield batch
        done += len(batch.index)
        now = time.monotonic()
        if now - said >= SECONDS_BETWEEN_LINES:
            said = now
            rate = done / (now - start)
            left = (num_images - done) / rate
            log.info("%s: %d/%d images  %.0f img/s  %.0f s left", what, done, num_images, rate, left)
    seconds = max(time.monotonic() - start, 1e-6)
    log.info("%s: %d images in %.1f s  %.0f img/s", what, done, seconds, done / seconds)
