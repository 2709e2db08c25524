"""knn: weighted k-nearest neighbours on CLS tokens (DINO, arXiv:2104.14294, Sec. 4.1)."""

from dataclasses import dataclass
from typing import TYPE_CHECKING

from unic.core.errors import ConfigError
from unic.core.results import Result
from unic.evals.registry import EVALUATIONS, EvalOptions, Evaluation, own_settings

if TYPE_CHECKING:
    from unic.evals.dataset_features import EvalData
    from unic.method.types import Encoder


@dataclass(frozen=True, kw_only=True)
class KnnConfig:
    """The defaults are DINO's; another temperature is named in the protocol of the results."""

    ks: tuple[int, ...] = (20, 10, 100, 200)
    """Numbers of neighbours to score; the first is the one reported."""
    temperature: float = 0.07
    chunk: int = 4096
    """Test images, and training images, compared at a time. Memory, beside a copy of the training features in 16 or 32
    bits: mostly 5 bytes times its square, and up to 60 where many training images are as near as each other."""

    def __post_init__(self) -> None:
        if not self.ks or min(self.ks) < 1:
            raise ConfigError(f"knn: numbers of neighbours {self.ks}: expected one or more, each at least 1")
        if not self.temperature > 0:
            raise ConfigError(f"knn: temperature {self.temperature}: expected more than 0")
        if self.chunk < 1:
            raise ConfigError(f"knn: chunk {self.chunk}: expected 1 or more")


def run(encoder: "Encoder", data: "EvalData", options: EvalOptions) -> list[Result]:
    from unic.evals.knn import knn_results

    return knn_results(data, own_settings(options, "knn"))


EVALUATIONS.add(
    "knn", Evaluation("knn", run, "weighted k-nearest neighbours on CLS tokens (DINO)", KnnConfig())
)
