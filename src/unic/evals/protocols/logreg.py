"""logreg: a linear classifier on CLS tokens, solved exactly as UNIC's protocol says; logreg-fast: found faster."""

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from unic.core.errors import ConfigError
from unic.core.results import Result
from unic.evals.registry import EVALUATIONS, EvalOptions, Evaluation, own_settings

if TYPE_CHECKING:
    from unic.evals.dataset_features import EvalData
    from unic.method.types import Encoder

LARGE = 100_000
"""More training images than this are learned by SGD: between Food-101 (75,750), the largest of the sets UNIC
solves by L-BFGS, and iNaturalist 2019 (265,213), the smallest it gives to SGD."""


@dataclass(frozen=True, kw_only=True)
class LogregConfig:
    """The defaults are UNIC's protocol; what differs from them is named in the protocol of the results."""

    seeds: tuple[int, ...] = (22,)
    """One classifier each: held-out images, order of trials, and for SGD first weights and order of images.
    With several the mean is reported, and the standard deviation between them beside it."""
    num_trials: int = 40
    """Settings tried on held-out images."""
    large: Literal["auto", "yes", "no"] = "auto"
    """SGD on features of length 1 instead of L-BFGS; auto: for more than 100,000 training images."""
    compat_split: bool = False
    """Hold out as many images of each class as the reference does, with its flaw for small classes."""

    def __post_init__(self) -> None:
        if not self.seeds or len(set(self.seeds)) < len(self.seeds) or min(self.seeds) < 0:
            raise ConfigError(f"seeds {self.seeds}: expected one or more different ones, 0 or more each")
        if self.num_trials < 1:
            raise ConfigError(f"{self.num_trials} trials: expected 1 or more")

    def is_large(self, num_images: int) -> bool:
        return self.large == "yes" or (self.large == "auto" and num_images > LARGE)


def run(encoder: "Encoder", data: "EvalData", options: EvalOptions) -> list[Result]:
    from unic.evals.linear.linear_probe import report
    from unic.evals.logreg import EXACT

    return report(data, EXACT, own_settings(options, "logreg"))


def run_fast(encoder: "Encoder", data: "EvalData", options: EvalOptions) -> list[Result]:
    from unic.evals.linear.linear_probe import report
    from unic.evals.logreg_fast import FAST

    return report(data, FAST, own_settings(options, "logreg-fast"))


for name, function, how in (
    ("logreg", run, "UNIC's protocol to the letter"),
    ("logreg-fast", run_fast, "UNIC's protocol solved faster"),
):
    EVALUATIONS.add(
        name, Evaluation(name, function, f"linear classifier on CLS tokens, {how}", LogregConfig())
    )
