"""Images, and one published file that most tests look at."""

from pathlib import Path

import layouts
import pytest
import torch
from timm.models.vision_transformer import VisionTransformer


@pytest.fixture
def images() -> torch.Tensor:
    generator = torch.Generator().manual_seed(3)
    return torch.randint(0, 256, (3, 3, 32, 32), dtype=torch.uint8, generator=generator)


@pytest.fixture(scope="session")
def model() -> VisionTransformer:
    """What the published file holds."""
    return layouts.vit(width=128, depth=3)


@pytest.fixture(scope="session")
def unic_pth(model: VisionTransformer, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("published") / "unic_l.pth"
    torch.save(layouts.published(model), path)
    return path
