"""What a person should hear of while a run goes on: a student that collapses, a teacher that is left behind."""

import logging
import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal

from unic.train.build_run import RunContext

log = logging.getLogger(__name__)

# A student has collapsed when its tokens spread in less than this share of the directions they could, or of those they
# did earlier in the run; not before the warm-up is over. As shares of what is possible, for CLS and patches:
# - photographs (CIFAR-10, `unic distill small_images`): at least 0.13 and 0.36, in the warm-up; 0.5 and 0.7 at the end
# - digits (`unic demo`): at least 0.07 and 0.09
# - photographs with 100 times that learning rate: 0.20 and 0.33 become 0.08 and 0.05, while k-NN falls to chance; the
#   second rule is for such a run, whose rank alone looks no worse than that of digits
_LEAST_OF_POSSIBLE, _LEAST_OF_EARLIER = 0.03, 0.25

# A teacher is left behind where the share explained of it is less than half of the best one's, and less by this much;
# not before this part of a run, because teachers may be learnt at different speeds.
_BEHIND_RATIO, _BEHIND_GAP, _BEHIND_FROM = 0.5, 0.1, 0.25

_WORDS = {"cls": "CLS tokens", "patches": "patch tokens"}


@dataclass(frozen=True)
class Alarm:
    """value: what was measured, below `bound`. teacher: None where the student itself is meant."""

    alarm: Literal["collapse", "behind"]
    teacher: str | None
    token: str
    value: float
    bound: float
    message: str

    @property
    def key(self) -> tuple[str, str, str]:
        """What stays the same while an alarm stands."""
        return self.alarm, self.teacher or "", self.token


class Alarms:
    """Says each alarm once until it is over, in the log and in RUN/alarms.jsonl; for the main process only."""

    def __init__(self, context: RunContext, width: int):
        """width: of the student's tokens. What an earlier part of the run saw is taken from its metrics."""
        self._context, self._width = context, width
        self._highest: dict[str, float] = {}
        self._standing: set[tuple[str, str, str]] = set()
        for line in context.run.read("metrics.jsonl"):
            if "fidelity/rank/cls" in line:
                self._standing = {alarm.key for alarm in self._found(line["step"], line)}

    def check(self, step: int, measured: Mapping[str, float]) -> None:
        """measured: what `Fidelity.measure` gave at this step; nothing where none of its images can be read."""
        if not measured:
            return
        found = {alarm.key: alarm for alarm in self._found(step, measured)}
        for key, alarm in found.items():
            if key not in self._standing:
                log.warning("step %d: %s", step, alarm.message)
                self._context.run.append("alarms.jsonl", {"step": step, **asdict(alarm)})
        for kind, teacher, token in sorted(self._standing - found.keys()):
            log.info("step %d: over: %s", step, " ".join(filter(None, (kind, teacher, token))))
        self._standing = set(found)

    def _found(self, step: int, measured: Mapping[str, Any]) -> list[Alarm]:
        cfg = self._context.recipe
        tokens = [name for name, learnt in (("cls", cfg.loss.cls), ("patches", cfg.loss.patches)) if learnt]
        ranks = {token: _number(measured, f"fidelity/rank/{token}") for token in tokens}
        found = []
        if step > cfg.optim.warmup_epochs * self._context.steps_per_epoch:
            num_images = min(cfg.log.fidelity_images, len(self._context.validation or self._context.sources))
            # N images spread in at most N - 1 directions; of patches there are more.
            found += collapses(ranks, self._highest, min(self._width, num_images - 1))
        for token, rank in ranks.items():
            self._highest[token] = max(self._highest.get(token, 0.0), rank or 0.0)
        if step >= _BEHIND_FROM * self._context.num_steps:
            found += behind(measured, tokens, self._context.teacher_names)
        return found


def collapses(ranks: Mapping[str, float | None], highest: Mapping[str, float], possible: int) -> list[Alarm]:
    """Token types of the student that hardly differ any more from image to image.

    ranks: effective ranks now; highest: earlier in the run; possible: the most it can be.
    """
    alarms = []
    for token, rank in ranks.items():
        bound = max(_LEAST_OF_POSSIBLE * possible, _LEAST_OF_EARLIER * highest.get(token, 0.0))
        if rank is not None and rank < bound:
            message = (
                f"the student's {_WORDS[token]} collapse: on different images they are nearly the same (effective rank "
                f"{rank:.1f}, expected at least {bound:.1f}); stop, and try a lower optim.lr or a longer "
                f"optim.warmup_epochs"
            )
            alarms.append(Alarm("collapse", None, token, rank, bound, message))
    return alarms


def behind(measured: Mapping[str, Any], tokens: Sequence[str], teachers: Sequence[str]) -> list[Alarm]:
    """Teachers of which far less is explained than of the best one."""
    alarms = []
    for token in tokens:
        values = {name: _number(measured, f"fidelity/{name}/{token}/explained") for name in teachers}
        known = {name: value for name, value in values.items() if value is not None}
        if not known:
            continue
        best = max(known, key=lambda name: known[name])
        bound = min(_BEHIND_RATIO * known[best], known[best] - _BEHIND_GAP)
        for name, value in known.items():
            if value < bound and bound > 0:  # of the best one, too, next to nothing may be explained yet
                message = (
                    f"{name} is left behind: {100 * value:.0f} % of the variance of its {_WORDS[token]} is explained, "
                    f"of {best}'s {100 * known[best]:.0f} %; see what `unic teachers check` says of it on these images"
                )
                alarms.append(Alarm("behind", name, token, value, bound, message))
    return alarms


def _number(measured: Mapping[str, Any], name: str) -> float | None:
    """None for what is not there, or was no finite number."""
    value = measured.get(name)
    return value if value is not None and math.isfinite(value) else None
