"""Recipes by name: one function per run. `unic distill NAME --data.root DIR`; any field can be set from there."""

from collections.abc import Callable

from unic.data.loader import DataConfig
from unic.data.views import ViewConfig
from unic.distill.standardize import StatisticsConfig
from unic.models.ladder import LadderConfig
from unic.models.student import StudentConfig
from unic.train.optim import OptimConfig
from unic.train.recipe import LogConfig, Recipe, SpeedConfig


def unic_vitb16() -> Recipe:
    """The published recipe: four ViT-B/16 teachers into one, 200 epochs of ImageNet-1K in batches of 512.

    Source: UNIC (ECCV 2024), Sec. 4. Published result: 83.8 % on ImageNet-1K (linear), 39.6 mIoU on ADE20K (linear).
    Cost: 330 GFLOP an image, about 60 hours on one H200.
    """
    return Recipe(
        teachers=("dino_vitb16", "ibot_vitb16", "deit3_vitb16", "dbotft_vitb16"),
        statistics=StatisticsConfig(warmup_batches=0, std_floor=0.0),  # as published
    )


def small_images() -> Recipe:
    """Two EfficientNet-Lite teachers into a ViT of 5 M parameters, for images of about 32 pixels such as CIFAR-10.

    Cost: figures and curves are in docs/LOG.md.
    """
    return Recipe(
        teachers=("efficientnet_lite0?image_size=96", "efficientnet_lite2?image_size=96"),
        student=StudentConfig(
            model=None, image_size=32, width=256, depth=6, heads=4, patch_size=8, drop_path=0.0
        ),
        ladder=LadderConfig(hidden=256, last_hidden=1024),
        data=DataConfig(
            views=ViewConfig(
                image_size=32,
                scale=(0.36, 1.0),
                jitter_prob=0.5,
                grayscale_prob=0.1,
                blur_prob=0.0,
                solarize_prob=0.0,
            )
        ),
        optim=OptimConfig(batch_size=64, epochs=4.0, warmup_epochs=0.4, lr=4e-3),
    )


def demo() -> Recipe:
    """What `unic demo` runs: two EfficientNet-Lite teachers into a small ViT on scikit-learn's digits, on a CPU."""
    return Recipe(
        teachers=("efficientnet_lite0?image_size=64", "efficientnet_lite2?image_size=64"),
        student=StudentConfig(
            model=None, image_size=32, width=192, depth=4, heads=3, patch_size=8, drop_path=0.0
        ),
        ladder=LadderConfig(hidden=192, last_hidden=768),
        data=DataConfig(
            views=ViewConfig(
                image_size=32,
                scale=(0.36, 1.0),
                flip=0.0,
                jitter_prob=0.0,
                grayscale_prob=0.0,
                blur_prob=0.0,
                solarize_prob=0.0,
            )
        ),
        # Small batches: on few images the number of steps counts (docs/LOG.md).
        optim=OptimConfig(batch_size=16, epochs=20.0, warmup_epochs=2.0, lr=1e-2),
        speed=SpeedConfig(precision="bf16"),  # half the time on processors with bf16 instructions
        log=LogConfig(every=100),
    )


def debug() -> Recipe:
    """The smallest run that touches every part: seconds, for finding out whether an installation works."""
    return Recipe(
        teachers=("timm:resnet10t?pretrained=0&image_size=32",),
        student=StudentConfig(
            model=None, image_size=32, width=32, depth=2, heads=2, patch_size=8, drop_path=0.1
        ),
        ladder=LadderConfig(hidden=32, last_hidden=64),
        data=DataConfig(views=ViewConfig(image_size=32)),
        optim=OptimConfig(batch_size=8, epochs=2.0, warmup_epochs=0.5),
        log=LogConfig(every=1),
    )


RECIPES: dict[str, Callable[[], Recipe]] = {
    recipe.__name__: recipe for recipe in (unic_vitb16, small_images, demo, debug)
}
