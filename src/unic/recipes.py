"""Recipes by name: one function per run. `unic distill NAME --data.root DIR`; any field can be set from there."""

from collections.abc import Callable
from dataclasses import replace

from unic.data.config import DataConfig, ViewConfig
from unic.method.config import StatisticsConfig
from unic.models.config import LadderConfig, StudentConfig
from unic.train.recipe import LogConfig, OptimConfig, Recipe, SpeedConfig


def unic_vitb16() -> Recipe:
    """The published recipe: four ViT-B/16 teachers into one, 200 epochs of ImageNet-1K in batches of 512.

    Source: UNIC (ECCV 2024), Sec. 4. Published result: 83.8 % on ImageNet-1K (linear), 39.6 mIoU on ADE20K (linear).
    Cost: 330 GFLOP an image, 85 EFLOP in all: 59 hours on one H200 at 40 % of its 989 TFLOP/s in bf16.
    The teachers' weights are fetched from their authors. `--dry-run` says what is missing and counts the rest.

    unic distill unic_vitb16 --data.root IMAGENET/train --speed.precision bf16 --speed.micro-batch 128
    """
    return Recipe(
        teachers=("dino_vitb16", "ibot_vitb16", "deit3_vitb16", "dbotft_vitb16"),
        statistics=StatisticsConfig(warmup_batches=0, std_floor=0.0),  # as published
        data=DataConfig(views=ViewConfig(pixels="fast")),
    )


def unic_vitl14() -> Recipe:
    """UNIC-L at 224 pixels: DINOv2 ViT-g/14 and MetaCLIP ViT-H/14 into one ViT-L/14, 200 epochs of ImageNet-1K.

    Source: UNIC (ECCV 2024) and the table published with the weights of UNIC-L; the widths of the ladder are inferred
    from the size of that file (2.2 GB). Published result, after both resolutions (this and `unic_vitl14_336`), as
    k-NN and zero-shot on ImageNet-1K and linear mIoU on ADE20K: UNIC-L 85.6 / 81.4 / 48.3; its teachers MetaCLIP-H
    82.1 / 80.5 / 35.4 and DINOv2-g with registers 83.4 / - / 48.7.
    Cost: 1,639 GFLOP an image, 420 EFLOP in all: 295 hours on one H200 at 40 % of its 989 TFLOP/s in bf16.

    unic distill unic_vitl14 --data.root IMAGENET/train
    """
    return Recipe(
        teachers=("dinov2_vitg14_reg", "metaclip_vith14"),
        student=StudentConfig(model="vit_large_patch14_224"),
        ladder=LadderConfig(hidden=1024, last_hidden=4096),  # D and 4 D, as in ViT-B
        statistics=StatisticsConfig(warmup_batches=0, std_floor=0.0),  # as published
        data=DataConfig(views=ViewConfig(pixels="fast")),
        speed=SpeedConfig(precision="bf16", micro_batch=128),  # 58 GB
    )


def unic_vitl14_336() -> Recipe:
    """UNIC-L at 336 pixels: the student of `unic_vitl14` for 20 more epochs, on a grid of 24 x 24 patches.

    The teachers see 336 pixels too: their grid of patches is then the student's. At 224 pixels theirs would be
    16 x 16, stretched to 24 x 24, and the student would learn the blur. Statistics are kept, and follow slowly.
    Source and published result: see `unic_vitl14`. The published schedule of this part is not known; 20 epochs at a
    third of the learning rate are ours.
    Cost: 3,808 GFLOP an image, 98 EFLOP in all: 69 hours on one H200 at 40 % of its 989 TFLOP/s in bf16.

    unic distill unic_vitl14_336 --data.root IMAGENET/train --start runs/unic_vitl14
    """
    first = unic_vitl14()
    return replace(
        first,
        start="runs/unic_vitl14",
        teachers=tuple(f"{name}?image_size=336" for name in first.teachers),
        student=replace(first.student, image_size=336),
        # Warm-up batches are for teachers without statistics in the start: at this rate they would not find any.
        statistics=StatisticsConfig(rate_start=0.001, std_floor=0.0),
        data=DataConfig(views=ViewConfig(image_size=336, pixels="fast")),
        optim=OptimConfig(epochs=20.0, warmup_epochs=1.0, lr=1e-4),
        speed=SpeedConfig(precision="bf16", micro_batch=64),  # 63 GB
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
        # A look at fidelity takes as long as a fifth of these short epochs.
        log=LogConfig(every=100, fidelity_every=5.0),
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
    recipe.__name__: recipe
    for recipe in (unic_vitb16, unic_vitl14, unic_vitl14_336, small_images, demo, debug)
}
