"""What a run writes down: metrics, alarms, TensorBoard, and on the terminal how far it is."""

import contextlib
import logging
import math
import time

from torch.utils.tensorboard import SummaryWriter

from unic.core import distributed
from unic.core.progress import Bar, time_left
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
        self._open = contextlib.ExitStack()
        if not self._is_main:
            return
        self._alarms = Alarms(context, width)
        self._writer = SummaryWriter(str(context.run.folder / "tensorboard"), purge_step=step + 1)
        self._open.callback(self._writer.close)
        self._bar, self._text = Bar(""), ""
        self._open.callback(self._bar.close)

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
        if not self._is_main:
            return
        if record:
            self._write(step, record)
        num_steps = self._context.num_steps
        self._bar.draw(step, num_steps, f"{step}/{num_steps}{self._text}")

    def _write(self, step: int, record: dict[str, float]) -> None:
        now = time.monotonic()
        steps_per_second = (step - self._window_step) / max(now - self._window_start, 1e-9)
        self._window_step, self._window_start = step, now
        record = {**record, "images_per_second": steps_per_second * self._context.recipe.optim.batch_size}
        left = time_left((self._context.num_steps - step) / max(steps_per_second, 1e-9))
        self._text = f"{_summary(record)}  {left}"
        if not self._bar.is_shown:
            log.info("step %d/%d%s", step, self._context.num_steps, self._text)
        # JSON has no NaN: the mean of a window in which every step was skipped is null.
        values = {name: value if math.isfinite(value) else None for name, value in record.items()}
        self._context.run.append("metrics.jsonl", {"step": step, **values})
        for name, value in record.items():
            self._writer.add_scalar(name, value, step)


def _summary(record: dict[str, float]) -> str:
    """Losses, share of the teachers' variance explained, images a second: as far as they are in the record."""
    text = "".join(f"  {name} {record[name]:.4f}" for name in ("loss", "val/loss") if name in record)
    explained = [value for name, value in record.items() if name.endswith("/explained")]
    if explained:
        text += f"  explained {100 * sum(explained) / len(explained):.1f} %"
    return f"{text}  {record['images_per_second']:.0f} img/s"
