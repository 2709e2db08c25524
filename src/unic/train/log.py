"""What a run writes down: metrics, alarms, TensorBoard, and on the terminal how far it is."""

import logging
import math
import sys
import time

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, TextColumn
from rich.progress import Progress as RichProgress
from torch.utils.tensorboard import SummaryWriter

from unic.core import distributed
from unic.train.build_run import RunContext
from unic.train.monitor.alarms import Alarms

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


class RunLog:
    """metrics.jsonl, alarms.jsonl, TensorBoard and the progress a person sees; nothing but on the main process."""

    def __init__(self, context: RunContext, step: int, width: int):
        self._context = context
        self._progress = Progress(step, context.num_steps, context.recipe.optim.batch_size)
        self._writer: SummaryWriter | None = None
        self._alarms: Alarms | None = None
        if distributed.is_main():
            self._alarms = Alarms(context, width)
            self._writer = SummaryWriter(str(context.run.folder / "tensorboard"), purge_step=step + 1)

    def __enter__(self) -> "RunLog":
        if self._writer:
            self._progress.start()
        return self

    def __exit__(self, *_: object) -> None:
        if self._writer:
            self._progress.stop()
            self._writer.close()

    def alarms(self, step: int, measured: dict[str, float]) -> None:
        """measured: what `Fidelity.measure` gave at this step."""
        if self._alarms:
            self._alarms.check(step, measured)

    def step(self, step: int, record: dict[str, float]) -> None:
        if self._writer is None:
            return
        rate = self._progress.step(step, record)
        if not record:
            return
        record = {**record, "images_per_second": rate}
        # JSON has no NaN: the mean of a window in which every step was skipped is null.
        values = {name: value if math.isfinite(value) else None for name, value in record.items()}
        self._context.run.append("metrics.jsonl", {"step": step, **values})
        for name, value in record.items():
            self._writer.add_scalar(name, value, step)
