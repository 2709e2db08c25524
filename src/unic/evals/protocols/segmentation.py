"""segmentation: a linear head on patches, mIoU (DINOv2's protocol on ADE20K, as UNIC uses it, Sec. 4)."""

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
class SegmentationConfig(DenseConfig):
    """The defaults are UNIC's schedule, 80,000 steps of 8 crops; DINOv2's is 40,000 of 16."""

    steps: int = 80_000
    batch: int = 8
    lr: float = 1e-3
    size: int = 512
    """Side of crops and of sliding windows, and the shorter side of test images, in pixels."""
    blocks: Literal["last", "last4"] = "last"
    """What the head reads: the last block, or the last four (DINOv2's multi-scale head)."""
    scales: tuple[float, ...] = (1.0,)
    """Test images are also seen at these multiples of their size, and the answers averaged."""
    flip: bool = False
    """Test images are also seen mirrored."""
    stride: int = 4
    """`fast` looks at one pixel of every square of stride x stride, another one at each step."""

    def __post_init__(self) -> None:
        super().__post_init__()
        for name in ("size", "stride"):
            if getattr(self, name) < 1:
                raise ConfigError(f"segmentation: {name} {getattr(self, name)}: expected 1 or more pixels")
        if self.stride > self.size:
            raise ConfigError(f"segmentation: stride {self.stride} is more than the size {self.size}")
        if not self.scales or not all(0 < scale < 100 for scale in self.scales):
            raise ConfigError(f"segmentation: scales {self.scales}: expected one or more, above 0")

    @property
    def window_stride(self) -> int:
        """Two thirds of the window: 341 for 512."""
        return max(self.size * 2 // 3, 1)


def run(encoder: "Encoder", data: "EvalData", options: EvalOptions) -> list[Result]:
    from unic.evals.dense.run_dense import run_dense
    from unic.evals.dense.segmentation import segmentation_task

    return run_dense(
        segmentation_task(encoder, data, own_settings(options, "segmentation"), options.precision),
        data,
        options,
    )


EVALUATIONS.add(
    "segmentation",
    Evaluation(
        "segmentation",
        run,
        "linear head on the last block's patches, mIoU with sliding windows (DINOv2)",
        SegmentationConfig(),
        fits=gives_maps,
        task="segmentation",
    ),
)
