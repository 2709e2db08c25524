"""How far a run is: a bar on a terminal, plain lines elsewhere; with images a second and the time left."""

import logging
import sys
import time

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, TextColumn
from rich.progress import Progress as RichProgress

log = logging.getLogger(__name__)


class Progress:
    """Counts steps from `step` to `num_steps`, each of `batch_size` images."""

    def __init__(self, step: int, num_steps: int, batch_size: int):
        self._num_steps = num_steps
        self._batch_size = batch_size
        self._window_step = step
        self._window_start = time.monotonic()
        self._bar: RichProgress | None = None
        if sys.stderr.isatty():
            columns = (BarColumn(), MofNCompleteColumn(), TextColumn("{task.fields[text]}"))
            self._bar = RichProgress(*columns, console=Console(stderr=True), transient=True)
            self._task = self._bar.add_task("steps", total=num_steps, completed=step, text="")

    def start(self) -> None:
        if self._bar:
            self._bar.start()

    def stop(self) -> None:
        if self._bar:
            self._bar.stop()

    def step(self, step: int, record: dict[str, float]) -> float:
        """Says that `step` steps are done; gives images a second since the last record."""
        seconds = max(time.monotonic() - self._window_start, 1e-9)
        steps_per_second = (step - self._window_step) / seconds
        if self._bar:
            self._bar.update(self._task, completed=step)
        if record:
            left = _duration((self._num_steps - step) / max(steps_per_second, 1e-9))
            text = "  ".join(f"{name} {record[name]:.4f}" for name in ("loss", "val/loss") if name in record)
            explained = [value for name, value in record.items() if name.endswith("/explained")]
            if explained:
                text += f"  explained {100 * sum(explained) / len(explained):.1f} %"
            text += f"  {steps_per_second * self._batch_size:.0f} img/s  {left} left"
            if self._bar:
                self._bar.update(self._task, text=text)
            else:
                log.info("step %d/%d  %s", step, self._num_steps, text)
            self._window_step, self._window_start = step, time.monotonic()
        return steps_per_second * self._batch_size


def _duration(seconds: float) -> str:
    minutes, seconds = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{seconds:02}"
