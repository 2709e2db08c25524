"""What a run writes down: metrics, alarms, TensorBoard, and on the terminal how far it is."""

import contextlib
import datetime
import logging
import math
import sys
import time

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn
from torch.utils.tensorboard import SummaryWriter

from unic.core import distributed
from unic.train.build_run import RunContext
from unic.train.monitor.alarms import Alarms

log = logging.getLogger(__name__)


class RunLog:
    """metrics.jsonl, alarms.jsonl, TensorBoard and the progress a person sees; nothing but on the main process."""

    def __init__(self, context: RunContext, step: int, width: int):
        """step: the last one that is done. width: of the student's tokens."""
        self._context = context
        self._is_main = distributed.is_main()
        self._window_step, self._window_start = step, time.monotonic()
        self._bar: Progress | None = None
        self._open = contextlib.ExitStack()
        if not self._is_main:
            return
        self._alarms = Alarms(context, width)
        self._writer = SummaryWriter(str(context.run.folder / "tensorboard"), purge_step=step + 1)
        self._open.callback(self._writer.close)
        if sys.stderr.isatty():
            columns = (BarColumn(), MofNCompleteColumn(), TextColumn("{task.fields[text]}"))
            self._bar = Progress(*columns, console=Console(stderr=True), transient=True)
            self._task = self._bar.add_task("steps", total=context.num_steps, completed=step, text="")
            self._open.enter_context(self._bar)

    def __enter__(self) -> "RunLog":
        return self

    def __exit__(self, *_: object) -> None:
        self._open.close()

    def alarms(self, step: int, measured: dict[str, float]) -> None:
        """measured: what `Fidelity.measure` gave at this step."""
        if self._is_main:
            self._alarms.check(step, measured)

    def step(self, step: int, record: dict[str, float]) -> None:
        """Says that `step` steps are done. record: metrics since the last record; empty: none are due."""
        if self._bar:
            self._bar.update(self._task, completed=step)
        if not self._is_main or not record:
            return
        now = time.monotonic()
        steps_per_second = (step - self._window_step) / max(now - self._window_start, 1e-9)
        self._window_step, self._window_start = step, now
        record = {**record, "images_per_second": steps_per_second * self._context.recipe.optim.batch_size}
        self._show(step, record, (self._context.num_steps - step) / steps_per_second)
        # JSON has no NaN: the mean of a window in which every step was skipped is null.
        values = {name: value if math.isfinite(value) else None for name, value in record.items()}
        self._context.run.append("metrics.jsonl", {"step": step, **values})
        for name, value in record.items():
            self._writer.add_scalar(name, value, step)

    def _show(self, step: int, record: dict[str, float], seconds_left: float) -> None:
        """Beside the bar on a terminal, else as a line of the log."""
        text = "  ".join(f"{name} {record[name]:.4f}" for name in ("loss", "val/loss") if name in record)
        explained = [value for name, value in record.items() if name.endswith("/explained")]
        if explained:
            text += f"  explained {100 * sum(explained) / len(explained):.1f} %"
        left = datetime.timedelta(seconds=round(seconds_left))
        text += f"  {record['images_per_second']:.0f} img/s  {left} left"
        if self._bar:
            self._bar.update(self._task, text=text)
        else:
            log.info("step %d/%d  %s", step, self._context.num_steps, text)
