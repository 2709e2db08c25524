"""Everything that decides a run, in one frozen value."""

import dataclasses
from dataclasses import dataclass, field
from typing import ClassVar, Literal

from unic.core.dataclass_json import check_finite
from unic.core.errors import ConfigError
from unic.data.config import DataConfig
from unic.method.config import LossConfig, StatisticsConfig
from unic.models.config import LadderConfig, StudentConfig


@dataclass(frozen=True, kw_only=True)
class OptimConfig:
    """AdamW with linear warm-up and cosine decay."""

    batch_size: int = 512
    """Images a step over all processes and micro-batches."""
    epochs: float = 200.0
    warmup_epochs: float = 10.0
    """Linear warm-up before the cosine, in epochs."""
    lr: float = 3e-4
    """Peak learning rate for 256 images a step; scaled in proportion to batch_size."""
    min_lr: float = 1e-6
    """Learning rate at the end of the cosine, not scaled."""
    weight_decay: float = 0.03
    """On matrices; biases and other one-dimensional parameters have none."""
    betas: tuple[float, float] = (0.9, 0.99)
    max_grad_norm: float | None = None
    """Gradients are scaled down to this norm; None: never."""

    def __post_init__(self):
        if self.batch_size < 2:
            raise ConfigError(
                f"optim.batch_size must be at least 2 (a std needs two images), got {self.batch_size}"
            )
        if not (self.epochs > 0 and 0 <= self.warmup_epochs <= self.epochs):
            raise ConfigError(
                f"optim.epochs must be above 0 and warmup_epochs within it, got {self.epochs} and {self.warmup_epochs}"
            )
        if not (self.lr > 0 and 0 <= self.min_lr <= self.peak_lr and self.weight_decay >= 0):
            raise ConfigError(
                f"optim needs lr > 0, 0 <= min_lr <= lr * batch_size / 256 and weight_decay >= 0, got lr={self.lr}, "
                f"min_lr={self.min_lr}, weight_decay={self.weight_decay}"
            )
        if not all(0 <= beta < 1 for beta in self.betas):
            raise ConfigError(f"optim.betas must be in [0, 1), got {self.betas}")
        if self.max_grad_norm is not None and self.max_grad_norm <= 0:
            raise ConfigError(f"optim.max_grad_norm must be above 0, got {self.max_grad_norm}")

    @property
    def peak_lr(self) -> float:
        return self.lr * self.batch_size / 256

    def num_steps(self, steps_per_epoch: int) -> int:
        return max(1, round(self.epochs * steps_per_epoch))


@dataclass(frozen=True, kw_only=True)
class SpeedConfig:
    """How fast, never what: these may change between the parts of a run (bf16 within its rounding)."""

    precision: Literal["fp32", "bf16"] = "fp32"
    kernels: Literal["fast", "exact"] = "fast"
    """exact: every part as its definition stands; fast: the same to rounding, in less time. On an accelerator it needs
    torch's compiler, and with it a C compiler."""
    micro_batch: int | None = None
    """Most images a process handles at once; gradients of the rest are accumulated. None: its share of the batch; with
    fast kernels on a CPU, as many of these as its caches hold."""
    workers: int | None = None
    """Processes that read images. None: chosen from the number of cores."""

    OLD_VALUES: ClassVar = {"kernels": {"plain": "exact"}}

    def __post_init__(self):
        if self.micro_batch is not None and self.micro_batch < 1:
            raise ConfigError(f"speed.micro_batch must be at least 1, got {self.micro_batch}")
        if self.workers is not None and self.workers < 0:
            raise ConfigError(f"speed.workers must not be negative, got {self.workers}")


@dataclass(frozen=True, kw_only=True)
class LogConfig:
    """What a run writes down, and how often."""

    every: int = 50
    """Steps between two lines of metrics."""
    validate_every: float = 1.0
    """Epochs between two validations (only with data.val_root)."""
    fidelity_every: float | None = 1.0
    """Epochs between two looks at how much of each teacher the student has, and whether it collapses; None or 0: never.
    A look costs a forward pass of fidelity_images: 0.1 % of an epoch of CIFAR-10, where it is 0.5 s every 9 minutes."""
    fidelity_images: int = 256
    """Images for that, the same ones each time: of data.val_root, else training images without augmentation."""
    checkpoint_minutes: float = 15.0
    """Time between two checkpoints."""
    checkpoint_steps: int | None = None
    """Steps between two checkpoints, instead of time."""
    keep: int = 2
    """Checkpoints kept; at least 2, so that one damaged file never ends a run."""

    def __post_init__(self):
        if self.every < 1 or (self.checkpoint_steps is not None and self.checkpoint_steps < 1):
            raise ConfigError("log.every and log.checkpoint_steps must be at least 1 step")
        if self.validate_every <= 0 or self.checkpoint_minutes < 0:
            raise ConfigError("log.validate_every must be above 0 epochs, log.checkpoint_minutes at least 0")
        if (self.fidelity_every or 0) < 0 or self.fidelity_images < 1:
            raise ConfigError(
                "log.fidelity_every must be above 0 epochs (None: never), log.fidelity_images at least 1"
            )
        if self.keep < 2:
            raise ConfigError(
                f"log.keep must be at least 2 (the newest checkpoint may be damaged), got {self.keep}"
            )


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """A run of distillation. The defaults of the parts are the published recipe of UNIC at ViT-B/16."""

    teachers: tuple[str, ...]
    """Names or URIs, each with options after `?`: efficientnet_lite0?image_size=64, timm:vit_small_patch16_224.dino"""
    student: StudentConfig = field(default_factory=StudentConfig)
    start: str | None = None
    """Run folder (also an imported one) whose student, ladder and statistics this run begins with, or the
    encoder.safetensors of one for its encoder alone. None: fresh weights."""
    ladder: LadderConfig = field(default_factory=LadderConfig)
    loss: LossConfig = field(default_factory=LossConfig)
    statistics: StatisticsConfig = field(default_factory=StatisticsConfig)
    data: DataConfig = field(default_factory=DataConfig)
    optim: OptimConfig = field(default_factory=OptimConfig)
    speed: SpeedConfig = field(default_factory=SpeedConfig)
    log: LogConfig = field(default_factory=LogConfig)
    seed: int = 0

    def __post_init__(self):
        check_finite(dataclasses.asdict(self))
        if not self.teachers:
            raise ConfigError("a recipe needs at least one teacher; see `unic teachers list`")
        if self.data.views.image_size < self.student.image_size:
            raise ConfigError(
                f"data.views.image_size {self.data.views.image_size} is smaller than student.image_size "
                f"{self.student.image_size}; set both (views may be larger: each encoder resizes to its own size)"
            )


# What may differ when a run is taken up again: it changes no result, only whether and how a run goes on.
FREE_TO_CHANGE = {"speed", "log", "data.max_bad"}
