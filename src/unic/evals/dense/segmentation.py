"""Semantic segmentation with a linear head on a frozen encoder (DINOv2's protocol on ADE20K, as UNIC uses it, Sec. 4).

Letters: B pictures, K classes, H W pixels, h w grid.
"""

import dataclasses
from functools import partial

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Int64, UInt8
from torch import Tensor, nn

from unic.core import keyed_random
from unic.data.decode import read_pixels
from unic.data.dense import segmentation_views
from unic.data.dense.read_annotations import IGNORED, Masks, read_mask, size_of
from unic.evals.dataset_features import EvalData
from unic.evals.dense.crop_batches import CropSpec
from unic.evals.dense.frozen_backbone import FrozenBackbone
from unic.evals.dense.lr_schedules import poly
from unic.evals.dense.prediction_images import coloured
from unic.evals.dense.segmentation_head import (
    SegmentationHead,
    pixel_loss,
    read_segmentation_head,
    sampled_pixel_loss,
)
from unic.evals.dense.segmentation_metrics import SegmentationMetrics
from unic.evals.dense.sliding_window import slide
from unic.evals.dense.task import DenseTask
from unic.evals.dense.train_head import Schedule
from unic.evals.protocols.segmentation import SegmentationConfig
from unic.evals.registry import Precision
from unic.method.types import DenseEncoder, Encoder, TokenMaps

PROTOCOL = "segmentation-1"

_WARMUP, _PUBLISHED_STEPS = 1500, 40_000


def segmentation_task(
    encoder: Encoder, data: EvalData, config: SegmentationConfig, precision: Precision
) -> DenseTask:
    images, masks = data.train, data.splits.truth
    assert isinstance(encoder, DenseEncoder) and isinstance(masks, Masks) and images is not None, (
        "`fits`, `task` and `uses_train` say so"
    )
    is_fast = config.mode == "fast"
    size = (config.size, config.size)
    layers = (-4, -3, -2, -1) if config.blocks == "last4" else (-1,)
    backbone = FrozenBackbone(encoder, layers, True, data.device, precision)
    widths = [shape[0] for _, shape in backbone.widths(size)]
    num_classes = len(masks.classes)
    truth_facts = dataclasses.asdict(masks)
    warmup = round(min(_WARMUP, config.steps * _WARMUP / _PUBLISHED_STEPS))
    settings = ("size", "blocks", "scales", "flip")
    return DenseTask(
        name="segmentation",
        protocol=PROTOCOL,
        config=config,
        backbone=backbone,
        make_head=partial(SegmentationHead, widths, num_classes),
        read_head=lambda state, origin: read_segmentation_head(state, widths, num_classes, origin),
        crops=CropSpec(
            images=images,
            cut=partial(_cut, masks, config.size),
            size=size,
            beyond=IGNORED,
            truth_dtype=torch.uint8,
            seed=config.seed,
            facts={"cutting": PROTOCOL, "truth": truth_facts, "seed": config.seed},
        ),
        loss=partial(_sampled_loss, config) if is_fast else _loss,
        schedule=Schedule(
            steps=config.steps,
            rate=lambda step: config.lr * poly(step, steps=config.steps, warmup=warmup),
            weight_decay=1e-4,
        ),
        stored_truth=torch.uint8,
        head_facts={
            "task": PROTOCOL,
            "blocks": config.blocks,
            "truth": truth_facts,
            "size": config.size,
            **({"stride": config.stride} if is_fast else {}),
        },
        learned=("steps", "batch", "lr", *settings),
        given=settings,
        always_learned=("stride",) if is_fast else (),
        read_truth=lambda file, image_size: read_mask(file, masks, image_size),
        predict=partial(segment, backbone=backbone, config=config),
        metrics=SegmentationMetrics(masks, data.device),
        colours=lambda classes: coloured(classes.byte().numpy(), masks.palette),
    )


@torch.no_grad()
def segment(
    image: UInt8[Tensor, "3 H W"], head: nn.Module, backbone: FrozenBackbone, config: SegmentationConfig
) -> Int64[Tensor, "H W"]:
    """The class of each pixel: sliding windows on the resized image, scores brought back to its own size.

    With several scales or mirrored, the mean of the probabilities decides.
    """
    size = image.shape[1:]
    total = torch.zeros((), device=backbone.device)
    for scale in config.scales:
        resized = segmentation_views.testing_view(image, size=int(config.size * scale))
        for mirrored in (False, True)[: 1 + config.flip]:
            scores = slide(
                resized.flip(-1) if mirrored else resized,
                lambda crops: head(backbone(crops)),
                size=config.size,
                stride=config.window_stride,
                at_once=config.at_once,
            )
            scores = F.interpolate(scores[None], size, mode="bilinear", align_corners=False)[0]
            total = total + (scores.flip(-1) if mirrored else scores).softmax(0)
    return total.argmax(0)


def _loss(head: nn.Module, maps: list[TokenMaps], truth: Tensor, step: int) -> Tensor:
    return pixel_loss(head(maps), truth)


def _sampled_loss(
    config: SegmentationConfig, head: nn.Module, maps: list[TokenMaps], truth: Tensor, step: int
) -> Tensor:
    row, column = keyed_random.generator(config.seed, "pixels of the loss", step).integers(
        config.stride, size=2
    )
    return sampled_pixel_loss(head(maps), truth, stride=config.stride, offset=(int(row), int(column)))


def _cut(
    masks: Masks, size: int, image: str, mask: str, draws: np.random.Generator
) -> tuple[UInt8[Tensor, "3 h w"], UInt8[Tensor, "h w"]]:
    pixels = read_pixels(image)
    truth = read_mask(mask, masks, size_of(pixels))
    return segmentation_views.training_view(pixels, truth, segmentation_views.draw(draws), size=size)
