"""Settings of the method; importing them does not import torch."""

from dataclasses import dataclass
from typing import Literal

from unic.core.errors import ConfigError


@dataclass(frozen=True, kw_only=True)
class LossConfig:
    """The distillation loss. Source: UNIC, Sec. 3.3 and 3.4; weights as in the released arguments."""

    cosine: float = 0.5
    """Weight of 1 - cosine similarity."""
    smooth_l1: float = 0.5
    """Weight of the smooth L1 distance (beta 1)."""
    cls: bool = True
    """Whether CLS tokens are compared."""
    patches: bool = True
    """Whether patch tokens are compared."""
    drop_prob: float = 0.5
    """Probability of dropping a teacher for an image, its hardest teacher excepted; 0 switches dropping off."""

    def __post_init__(self):
        if self.cosine < 0 or self.smooth_l1 < 0 or self.cosine + self.smooth_l1 == 0:
            raise ConfigError(
                f"loss.cosine={self.cosine} and loss.smooth_l1={self.smooth_l1}: need one above 0, none below"
            )
        if not (self.cls or self.patches):
            raise ConfigError("loss.cls and loss.patches are both off; nothing would be learnt")
        if not 0 <= self.drop_prob < 1:
            raise ConfigError(f"loss.drop_prob must be in [0, 1), got {self.drop_prob}")


@dataclass(frozen=True, kw_only=True)
class StatisticsConfig:
    """Standardisation of teacher features. Source: UNIC, Sec. 3.3."""

    kind: Literal["ema", "none"] = "ema"
    rate_start: float = 1.0
    """Rate of the moving average at step 0; it falls to rate_end along a cosine over all steps."""
    rate_end: float = 0.001
    warmup_batches: int = 8
    """Batches that are measured before step 0. 0 is as published: step 0 then sees raw features."""
    std_floor: float = 0.05
    """Least std of a dimension, relative to the median std of the teacher's dimensions. 0 is as published."""

    def __post_init__(self):
        if not (0 <= self.rate_end <= 1 and 0 <= self.rate_start <= 1):
            raise ConfigError(
                f"statistics rates must be in [0, 1], got {self.rate_start} and {self.rate_end}"
            )
        if self.warmup_batches < 0 or self.std_floor < 0:
            raise ConfigError("statistics.warmup_batches and statistics.std_floor must not be negative")
