"""depth: a linear head on patches, RMSE in metres (DINOv2's protocol on NYU Depth v2, as UNIC uses it)."""

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from unic.core.errors import ConfigError
from unic.core.results import Result
from unic.evals.dense.config import DenseConfig, gives_maps
from unic.evals.registry import EVALUATIONS, EvalOptions, Evaluation, own_settings

if TYPE_CHECKING:
    from unic.evals.dataset_features import EvalData
    from unic.method.types import Encoder


@dataclass(frozen=True, kw_only=True)
class DepthConfig(DenseConfig):
    """The defaults are those of DINOv2's linear heads on NYU Depth v2."""

    steps: int = 38_400
    batch: int = 16
    lr: float = 5e-3
    blocks: Literal["last", "four"] = "last"
    """What the head reads: the last block (linear-1), or four evenly spread ones (linear-4)."""
    norm: bool = False
    """Read the blocks through the encoder's final norm."""
    crop: tuple[int, int] = (416, 544)
    """Height and width of the crops to learn from, in pixels."""
    flip: bool = True
    """Test images are also seen mirrored, and the two depths averaged."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if min(self.crop) < 1:
            raise ConfigError(f"depth: crop {self.crop}: expected height and width of 1 or more pixels")


def run(encoder: "Encoder", data: "EvalData", options: EvalOptions) -> list[Result]:
    from unic.evals.dense.depth import depth_task
    from unic.evals.dense.run_dense import run_dense

    return run_dense(
        depth_task(encoder, data, own_settings(options, "depth"), options.precision), data, options
    )


EVALUATIONS.add(
    "depth",
    Evaluation(
        "depth",
        run,
        "linear head on the last block or on four, RMSE in metres (DINOv2)",
        DepthConfig(),
        fits=gives_maps,
        task="depth",
    ),
)
