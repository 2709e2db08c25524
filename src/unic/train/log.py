"""What a run writes down: metrics, alarms, TensorBoard, and on the terminal how far it is."""

import logging
import math
import time

from torch.utils.tensorboard import SummaryWriter

from unic.core import distributed
from unic.core.progress import Bar, time_left
from unic.train.build_run import RunContext
from unic.train.monitor.alarms import Alarms

log = logging.getLogger(__name__)


class StepProgress(Bar):
    """Counts steps from `step` to `num_steps`, each of `batch_size` images."""

    def __init__(self, step: int, num_steps: int, batch_size: int):
        super().__init__("")
        self._num_steps = num_steps
        self._batch_size = batch_size
        self._window_step = step
        self._window_start = time.monotonic()
        self._text = ""

    def step(self, step: int, record: dict[str, float]) -> float:
        """Says that `step` steps are done; gives images a second since the last record."""
        seconds = max(time.monotonic() - self._window_start, 1e-9)
        steps_per_second = (step - self._window_step) / seconds
        if record:
            self._text = "".join(
                f"  {name} {record[name]:.4f}" for name in ("loss", "val/loss") if name in record
            )
            explained = [value for name, value in record.items() if name.endswith("/explained")]
            if explained:
                self._text += f"  explained {100 * sum(explained) / len(explained):.1f} %"
            left = time_left((self._num_steps - step) / max(steps_per_second, 1e-9))
            self._text += f"  {steps_per_second * self._batch_size:.0f} img/s  {left}"
            self._window_step, self._window_start = step, time.monotonic()
            if not self.is_shown:
                log.info("step %d/%d%s", step, self._num_steps, self._text)
        self.draw(step, self._num_steps, f"{step}/{self._num_steps}{self._text}")
        return steps_per_second * self._batch_size


class RunLog:
    """metrics.jsonl, alarms.jsonl, TensorBoard and the progress a person sees; nothing but on the main process."""

    def __init__(self, context: RunContext, step: int, width: int):
        self._context = context
        self._writer: SummaryWriter | None = None
        if distributed.is_main():
            self._alarms = Alarms(context, width)
            self._writer = SummaryWriter(str(context.run.folder / "tensorboard"), purge_step=step + 1)
            self._progress = StepProgress(step, context.num_steps, context.recipe.optim.batch_size)

    def __enter__(self) -> "RunLog":
        return self

    def __exit__(self, *_: object) -> None:
        if self._writer:
            self._progress.close()
            self._writer.close()

    def alarms(self, step: int, measured: dict[str, float]) -> None:
        """measured: what `Fidelity.measure` gave at this step."""
        if self._writer:
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
