"""What an evaluation is, which ones there are, and what they can be told.

An evaluation is one file in protocols/ (or a `--plugin`) that adds an `Evaluation` to `EVALUATIONS`; copy
protocols/knn.py. It takes an Encoder, so teachers, students, and students in a teacher's space all cost no code.
Nothing here imports torch, and no file in protocols/ does before it runs: the command line lists all settings.
"""

import dataclasses
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from unic.core.errors import ConfigError
from unic.core.registry import Registry
from unic.core.results import Result

if TYPE_CHECKING:
    from unic.data.datasets import Task
    from unic.evals.dataset_features import EvalData
    from unic.method.types import Encoder

Precision = Literal["fp32", "bf16"]


@dataclass(frozen=True, kw_only=True)
class EvalOptions:
    """What all evaluations share; `options_type()` adds the settings of each one under its name."""

    batch_size: int = 256
    """Images encoded at a time; changes no result."""
    workers: int | None = None
    """Processes that read images; chosen by the number of processor cores when not given."""
    precision: Precision = "fp32"
    """Number format of the encoder; bf16 is faster, and named in the protocol of its results."""
    allow_count_mismatch: bool = False
    """Accept a data set of which images are missing; its data hash tells such results apart."""
    head: Path | None = None
    """A published or kept head for segmentation or depth, used as it is instead of learning one."""

    def __post_init__(self) -> None:
        if self.batch_size < 1:
            raise ConfigError(f"batch size {self.batch_size} of the evaluation: expected 1 or more")


@dataclass(frozen=True)
class Evaluation:
    """A way to judge an encoder on a data set with labels.

    run: gives the reported number first, then the others.
    settings: the defaults of its own options, a frozen dataclass that `run` finds by `own_settings`.
    uses_train: whether it needs training images; without, `EvalData.train` is None.
    task: the kind of data set it is for.
    fits: whether it can judge an encoder at all; suites leave out what does not.
    """

    name: str
    run: Callable[["Encoder", "EvalData", EvalOptions], list[Result]]
    description: str
    settings: Any = None
    uses_train: bool = True
    task: "Task" = "classification"
    fits: Callable[["Encoder"], bool] = lambda encoder: True


EVALUATIONS: Registry[Evaluation] = Registry("evaluation", "unic.evals.protocols")


def options_type() -> type[EvalOptions]:
    """EvalOptions and a field for each registered evaluation with settings, such as `--knn.temperature`."""
    own = [
        (name.replace("-", "_"), type(settings), dataclasses.field(default=settings))
        for name in EVALUATIONS
        if (settings := EVALUATIONS[name].settings) is not None
    ]
    return dataclasses.make_dataclass(
        "EvalOptions",
        own,
        bases=(EvalOptions,),
        frozen=True,
        kw_only=True,
        namespace={"__doc__": EvalOptions.__doc__},
    )


def own_settings(options: EvalOptions, evaluation: str) -> Any:
    """The settings of one evaluation: from `options` when `options_type()` made them, else its defaults."""
    return getattr(options, evaluation.replace("-", "_"), EVALUATIONS[evaluation].settings)
