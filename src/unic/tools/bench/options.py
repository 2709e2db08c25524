"""The options of `unic bench`; importing them does not import torch."""

from dataclasses import dataclass

from unic.core.errors import ConfigError


@dataclass(frozen=True, kw_only=True)
class BenchOptions:
    """How a recipe is measured."""

    batch: int = 32
    """Images a step."""
    steps: int = 5
    """Timed turns of each setting, after three that are not; the first of those is compared. A turn is a step; on an
    accelerator the mean of eight in a row."""
    image_size: int | None = None
    """Pixels a side of views and student; None: the recipe's."""
    fp32: bool = False
    """Also exact fp32: slow, and one more student in memory."""
    threads: int | None = None
    """Threads of the processor; None: torch's choice."""
    data_root: tuple[str, ...] = ()
    """Images whose reading is timed; made-up photographs when none is named."""

    def __post_init__(self):
        if self.batch < 2:
            raise ConfigError(f"--batch must be at least 2 (a std needs two images), got {self.batch}")
        if self.steps < 1 or (self.threads is not None and self.threads < 1):
            raise ConfigError(
                f"--steps and --threads must be at least 1, got {self.steps} and {self.threads}"
            )
