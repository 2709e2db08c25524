"""Depth of every pixel with a linear head on a frozen encoder (DINOv2's protocol on NYU Depth v2, as UNIC uses it).

`exact` makes new crops for every step, as published; `fast` learns from the features of a fixed number of crops.
Letters: B pictures, H W pixels.
"""

import dataclasses
import logging
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from jaxtyping import Float, UInt8
from torch import Tensor

from unic.core import rng
from unic.core.errors import ConfigError, DataError
from unic.core.progress import with_progress
from unic.data.decode import read_pixels
from unic.data.dense import depth_views
from unic.data.dense.annotations import Depths, read_depth, size_of
from unic.evals.api import EVALUATIONS, EvalData, EvalOptions, Evaluation, own_settings
from unic.evals.dense.crop_batches import CropSpec
from unic.evals.dense.depth_head import DepthHead, layers_for, read_depth_head
from unic.evals.dense.depth_loss import sig_loss
from unic.evals.dense.depth_metrics import DepthMetrics
from unic.evals.dense.frozen_backbone import FrozenBackbone
from unic.evals.dense.head_cache import DenseConfig, choices, train_or_load_head
from unic.evals.dense.lr_schedules import cosine, one_cycle_momentum
from unic.evals.dense.prediction_images import in_colours_of_distance, panels_of, write_panel
from unic.evals.dense.train_head import Schedule
from unic.evals.results import Result
from unic.method.tokens import Encoder, TokenMaps
from unic.models.encoder import ImageEncoder
from unic.models.weights import read_weights

log = logging.getLogger(__name__)

PROTOCOL = "depth-1"

_CROP = (416, 544)
_WARMUP_SHARE = 1 / 3  # 12,800 of 38,400 steps


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
    crop: tuple[int, int] = _CROP
    """Height and width of the crops to learn from, in pixels."""
    flip: bool = True
    """Test images are also seen mirrored, and the two depths averaged."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if min(self.crop) < 1:
            raise ConfigError(f"depth: crop {self.crop}: expected height and width of 1 or more pixels")


def run(encoder: Encoder, data: EvalData, options: EvalOptions) -> list[Result]:
    """RMSE in metres first, then the other measures; each is the mean over the test images."""
    depths = data.splits.truth
    assert isinstance(encoder, ImageEncoder) and isinstance(depths, Depths), "`fits` and `task` say so"
    config: DepthConfig = own_settings(options, "depth")
    layers = layers_for(_depth_of(encoder), 1 if config.blocks == "last" else 4)
    seen = FrozenBackbone(encoder, layers, config.norm, data.device, options.precision)
    widths = [cls + shape[0] for cls, shape in seen.widths(config.crop)]
    if options.head is not None:
        state = read_weights(options.head)
        head = read_depth_head(
            state, widths, nearest=depths.nearest, farthest=depths.farthest, origin=str(options.head)
        )
        head, folder = head.to(data.device), None
    else:
        with rng.seeded_torch(config.seed, "depth head"):
            head = DepthHead(widths, nearest=depths.nearest, farthest=depths.farthest).to(data.device)
        folder = _learn(head, seen, data, config, options)
    found = _test(head, seen, data, config, folder)
    names = ["blocks", "norm", "flip"]
    protocol = choices(
        PROTOCOL, config, options, learned=["steps", "batch", "lr", "crop", *names], given=names
    )
    return [
        data.result(
            "depth", metric, value, protocol=protocol, seed=config.seed,
            unit="m" if metric == "rmse" else "", higher_is_better=metric.startswith("d"),
        )
        for metric, value in found.items()
    ]  # fmt: skip


def _learn(
    head: DepthHead, seen: FrozenBackbone, data: EvalData, config: DepthConfig, options: EvalOptions
) -> Path | None:
    images, depths = data.train, data.splits.truth
    assert images is not None and isinstance(depths, Depths)

    def loss(maps: list[TokenMaps], truth: Tensor, step: int) -> Tensor:
        return sig_loss(head(maps, truth.shape[-2:]), truth.float(), step=step)

    warmup = round(config.steps * _WARMUP_SHARE)
    return train_or_load_head(
        head,
        loss,
        seen=seen,
        cutting=CropSpec(
            images=images,
            cut=partial(_cut, depths, config.crop),
            size=config.crop,
            beyond=0.0,
            truth_dtype=torch.float32,
            seed=config.seed,
            facts={"cutting": PROTOCOL, "truth": dataclasses.asdict(depths), "seed": config.seed},
        ),
        schedule=Schedule(
            steps=config.steps,
            rate=lambda step: config.lr * cosine(step, steps=config.steps, warmup=warmup),
            momentum=lambda step: one_cycle_momentum(step, steps=config.steps),
            weight_decay=0.01,
            clip=35.0,
        ),
        config=config,
        options=options,
        facts={"task": PROTOCOL, "truth": dataclasses.asdict(depths), "crop": config.crop},
        stored_truth=torch.float16,
        cache=data.cache,
        what=f"{seen.encoder.name}  {data.name}",
    )


def _cut(
    depths: Depths, crop: tuple[int, int], image: str, truth: str, draws: np.random.Generator
) -> tuple[UInt8[Tensor, "3 h w"], Float[Tensor, "h w"]]:
    pixels = read_pixels(image)
    metres = read_depth(truth, depths, size_of(pixels))
    try:
        return depth_views.training_view(
            pixels, metres, depth_views.draw(draws), border=depths.border, size=crop
        )
    except DataError as error:
        raise DataError(f"{image}: {error}") from error


def _test(
    head: DepthHead, seen: FrozenBackbone, data: EvalData, config: DepthConfig, folder: Path | None
) -> dict[str, float]:
    depths, images = data.splits.truth, data.test
    assert isinstance(depths, Depths) and images.maps is not None
    metrics = DepthMetrics(depths)
    panels, shown = panels_of(config, folder, len(images))
    pairs = list(zip(images.paths, images.maps, strict=True))
    what = f"{seen.encoder.name}  {data.name} test"
    for number, (image, truth) in enumerate(with_progress(pairs, len(pairs), what)):
        pixels = read_pixels(image)
        metres = read_depth(truth, depths, size_of(pixels))
        found = depth_of(pixels, head, seen, config).cpu()
        try:
            metrics.update(found, metres)
        except DataError as error:
            raise DataError(f"{truth}: {error}") from error
        if number in shown:
            pictures = [pixels.permute(1, 2, 0).numpy()]  # (3, H, W) -> (H, W, 3)
            pictures += [
                in_colours_of_distance(part.numpy(), farthest=depths.farthest) for part in (metres, found)
            ]
            write_panel(panels / f"{seen.encoder.name}-{Path(image).stem}.png", pictures)
    if shown:
        log.info("%s: images, truth and predictions side by side in %s", what, panels)
    return metrics.compute()


@torch.no_grad()
def depth_of(
    image: UInt8[Tensor, "3 H W"], head: DepthHead, seen: FrozenBackbone, config: DepthConfig
) -> Float[Tensor, "H W"]:
    """Metres for each pixel of the whole image, which is not resized; with `flip` the mean with its mirror image's."""
    both = [image, image.flip(-1)] if config.flip else [image]
    found = head(seen(torch.stack(both)), image.shape[1:])
    return (found[0] + found[1].flip(-1)) / 2 if config.flip else found[0]


def _depth_of(encoder: ImageEncoder) -> int | None:
    """The number of blocks of a ViT; None for other networks."""
    is_vit = hasattr(encoder.model, "blocks") and hasattr(encoder.model, "num_prefix_tokens")
    return len(encoder.model.blocks) if is_vit else None


EVALUATIONS.add(
    "depth",
    Evaluation(
        "depth",
        run,
        "linear head on the last block or on four, RMSE in metres (DINOv2)",
        DepthConfig(),
        fits=lambda encoder: isinstance(encoder, ImageEncoder),
        task="depth",
    ),
)
