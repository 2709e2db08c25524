"""Depth of every pixel with a linear head on a frozen encoder (DINOv2's protocol on NYU Depth v2, as UNIC uses it).

Letters: B pictures, H W pixels.
"""

import dataclasses
from functools import partial

import numpy as np
import torch
from jaxtyping import Float, UInt8
from torch import Tensor, nn

from unic.core.errors import DataError
from unic.data.decode import read_pixels
from unic.data.dense import depth_views
from unic.data.dense.read_annotations import Depths, read_depth, size_of
from unic.evals.dataset_features import EvalData
from unic.evals.dense.crop_batches import CropSpec
from unic.evals.dense.depth_head import DepthHead, layers_for, read_depth_head, sig_loss
from unic.evals.dense.depth_metrics import DepthMetrics
from unic.evals.dense.frozen_backbone import FrozenBackbone
from unic.evals.dense.lr_schedules import cosine, one_cycle_momentum
from unic.evals.dense.prediction_images import in_colours_of_distance
from unic.evals.dense.task import DenseTask
from unic.evals.dense.train_head import Schedule
from unic.evals.protocols.depth import DepthConfig
from unic.evals.registry import Precision
from unic.method.types import DenseEncoder, Encoder, TokenMaps

PROTOCOL = "depth-1"

_WARMUP_SHARE = 1 / 3  # 12,800 of 38,400 steps


def depth_task(encoder: Encoder, data: EvalData, config: DepthConfig, precision: Precision) -> DenseTask:
    images, depths = data.train, data.splits.truth
    assert isinstance(encoder, DenseEncoder) and isinstance(depths, Depths) and images is not None, (
        "`fits`, `task` and `uses_train` say so"
    )
    layers = layers_for(_num_blocks(encoder), 1 if config.blocks == "last" else 4)
    backbone = FrozenBackbone(encoder, layers, config.norm, data.device, precision)
    widths = [cls + shape[0] for cls, shape in backbone.widths(config.crop)]
    between = {"nearest": depths.nearest, "farthest": depths.farthest}
    truth_facts = dataclasses.asdict(depths)
    warmup = round(config.steps * _WARMUP_SHARE)
    settings = ("blocks", "norm", "flip")
    return DenseTask(
        name="depth",
        protocol=PROTOCOL,
        config=config,
        backbone=backbone,
        make_head=partial(DepthHead, widths, **between),
        read_head=lambda state, origin: read_depth_head(state, widths, **between, origin=origin),
        crops=CropSpec(
            images=images,
            cut=partial(_cut, depths, config.crop),
            size=config.crop,
            beyond=0.0,
            truth_dtype=torch.float32,
            seed=config.seed,
            facts={"cutting": PROTOCOL, "truth": truth_facts, "seed": config.seed},
        ),
        loss=_loss,
        schedule=Schedule(
            steps=config.steps,
            rate=lambda step: config.lr * cosine(step, steps=config.steps, warmup=warmup),
            momentum=lambda step: one_cycle_momentum(step, steps=config.steps),
            weight_decay=0.01,
            clip=35.0,
        ),
        stored_truth=torch.float16,
        head_facts={"task": PROTOCOL, "truth": truth_facts, "crop": config.crop},
        learned=("steps", "batch", "lr", "crop", *settings),
        given=settings,
        read_truth=lambda file, image_size: read_depth(file, depths, image_size),
        predict=partial(depth_of, backbone=backbone, config=config),
        metrics=DepthMetrics(depths),
        colours=lambda metres: in_colours_of_distance(metres.numpy(), farthest=depths.farthest),
    )


@torch.no_grad()
def depth_of(
    image: UInt8[Tensor, "3 H W"], head: nn.Module, backbone: FrozenBackbone, config: DepthConfig
) -> Float[Tensor, "H W"]:
    """Metres for each pixel of the whole image, which is not resized; with `flip` the mean with its mirror image's."""
    both = [image, image.flip(-1)] if config.flip else [image]
    metres = head(backbone(torch.stack(both)), image.shape[1:])
    return (metres[0] + metres[1].flip(-1)) / 2 if config.flip else metres[0]


def _loss(head: nn.Module, maps: list[TokenMaps], truth: Tensor, step: int) -> Tensor:
    return sig_loss(head(maps, truth.shape[-2:]), truth.float(), step=step)


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


def _num_blocks(encoder: DenseEncoder) -> int | None:
    """Of a ViT; None for other networks."""
    is_vit = hasattr(encoder.model, "blocks") and hasattr(encoder.model, "num_prefix_tokens")
    return len(encoder.model.blocks) if is_vit else None
