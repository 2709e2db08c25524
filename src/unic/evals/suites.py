"""Which evaluations on which data sets a comparison is made of: the axes of UNIC's radar, and a quick look."""

from collections.abc import Mapping

from unic.core.errors import ConfigError
from unic.core.registry import unknown

COG = tuple(f"cog_l{level}" for level in range(1, 6))
SMALL = ("aircraft", "cars196", "dtd", "eurosat", "flowers", "pets", "food101", "sun397")
LONG_TAIL = ("inat2018", "inat2019")
SHIFTED = ("imagenetv2", "sketch", "imagenet_r", "imagenet_a", "objectnet", "imagenet_real")

Suite = Mapping[str, tuple[str, ...]]
"""By data set, the names of the evaluations."""

_TRANSFER: Suite = {name: ("logreg-fast",) for name in ("in1k", *COG, *SMALL, *LONG_TAIL)}
_DENSE: Suite = {"ade20k": ("segmentation",), "nyud": ("depth",)}
_ROBUSTNESS: Suite = {name: ("logreg-fast",) for name in SHIFTED}

SUITES: Mapping[str, Suite] = {
    "transfer": _TRANSFER,
    "robustness": _ROBUSTNESS,
    "dense": _DENSE,
    "paper": {**_TRANSFER, "in1k": ("logreg-fast", "knn", "zero-shot"), **_ROBUSTNESS, **_DENSE},
    "quick": {name: ("knn", "logreg-fast") for name in ("dtd", "eurosat", "flowers", "pets")},
}
"""transfer: the 16 sets of UNIC's Sec. 4. robustness: ImageNet-1K's classifier on shifted sets, as it is.
dense: linear heads on patches."""


def suite(name: str) -> Suite:
    if name not in SUITES:
        raise ConfigError(unknown("suite", name, SUITES))
    return SUITES[name]
