"""The smallest runs that touch every part: made-up photographs, two small random teachers, a ViT of two blocks."""

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from unic import recipes
from unic.train.recipe import Recipe

# A convolutional network and a ViT, whose features are never constant over a batch: the std of such a feature is the
# root of a rounding error, and so differs between one process and two.
TEACHERS = tuple(f"timm:{name}?pretrained=0&image_size=32" for name in ("test_convnext", "test_vit"))


def write_photos(root: Path) -> Path:
    """train/ with 24 images, val/ with 5."""
    rng = np.random.default_rng(0)
    for folder, num_images in (("train", 24), ("val", 5)):
        (root / folder).mkdir(parents=True)
        for i in range(num_images):
            coarse = rng.integers(0, 256, (6, 5, 3), dtype=np.uint8)
            photo = Image.fromarray(coarse).resize((36, 40), Image.Resampling.BICUBIC)
            photo.save(root / folder / f"{i}.png")
    return root


def small_recipe(photos: Path) -> Recipe:
    """48 steps of 4 images in 8 epochs; drop path and teacher dropping are on; a checkpoint every 3 steps."""
    return changed(
        recipes.debug(),
        {
            "teachers": TEACHERS,
            "data": {"root": (str(photos / "train"),)},
            "optim": {"batch_size": 4, "epochs": 8.0, "warmup_epochs": 1.0, "lr": 3e-3},
            "log": {"every": 1, "checkpoint_steps": 3},
            "speed": {"workers": 0},
        },
    )


def changed(recipe: Recipe, changes: Mapping[str, Any]) -> Recipe:
    """A recipe with other fields: {"optim": {"epochs": 1.0}, "seed": 3}."""
    values = {
        name: replace(getattr(recipe, name), **value) if isinstance(value, dict) else value
        for name, value in changes.items()
    }
    return replace(recipe, **values)
