"""Semantic segmentation with a linear head on a frozen encoder (DINOv2's protocol on ADE20K, as UNIC uses it, Sec. 4).

`exact` makes new crops for every step, as published; `fast` learns from the features of a fixed number of crops.
Letters: B pictures, K classes, H W pixels, h w grid.
"""

import dataclasses
import logging
import math
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Literal

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Float64, Int64, UInt8
from torch import Tensor

from unic.core import rng
from unic.core.errors import ConfigError
from unic.core.files import write_json
from unic.core.progress import with_progress
from unic.data.decode import read_pixels
from unic.data.dense import segmentation_views
from unic.data.dense.annotations import IGNORED, Masks, read_mask, size_of
from unic.evals.api import EVALUATIONS, EvalData, EvalOptions, Evaluation, own_settings
from unic.evals.dense.crop_batches import CropSpec
from unic.evals.dense.frozen_backbone import FrozenBackbone
from unic.evals.dense.head_cache import DenseConfig, choices, train_or_load_head
from unic.evals.dense.lr_schedules import poly
from unic.evals.dense.prediction_images import coloured, panels_of, write_panel
from unic.evals.dense.segmentation_head import (
    SegmentationHead,
    pixel_loss,
    read_segmentation_head,
    sampled_pixel_loss,
)
from unic.evals.dense.sliding_window import slide
from unic.evals.dense.train_head import Schedule
from unic.evals.results import Result
from unic.method.tokens import Encoder, TokenMaps
from unic.models.encoder import ImageEncoder
from unic.models.weights import read_weights

log = logging.getLogger(__name__)

PROTOCOL = "segmentation-1"

_WARMUP, _PUBLISHED_STEPS = 1500, 40_000


@dataclass(frozen=True, kw_only=True)
class SegmentationConfig(DenseConfig):
    """The defaults are UNIC's schedule, 80,000 steps of 8 crops; DINOv2's is 40,000 of 16."""

    steps: int = 80_000
    batch: int = 8
    lr: float = 1e-3
    size: int = 512
    """Side of crops and of sliding windows, and the shorter side of test images, in pixels."""
    blocks: Literal["last", "last4"] = "last"
    """What the head reads: the last block, or the last four (DINOv2's multi-scale head)."""
    scales: tuple[float, ...] = (1.0,)
    """Test images are also seen at these multiples of their size, and the answers averaged."""
    flip: bool = False
    """Test images are also seen mirrored."""
    stride: int = 4
    """`fast` looks at one pixel of every square of stride x stride, another one at each step."""

    def __post_init__(self) -> None:
        super().__post_init__()
        for name in ("size", "stride"):
            if getattr(self, name) < 1:
                raise ConfigError(f"segmentation: {name} {getattr(self, name)}: expected 1 or more pixels")
        if self.stride > self.size:
            raise ConfigError(f"segmentation: stride {self.stride} is more than the size {self.size}")
        if not self.scales or not all(0 < scale < 100 for scale in self.scales):
            raise ConfigError(f"segmentation: scales {self.scales}: expected one or more, above 0")

    @property
    def window_stride(self) -> int:
        """Two thirds of the window: 341 for 512."""
        return max(self.size * 2 // 3, 1)


def run(encoder: Encoder, data: EvalData, options: EvalOptions) -> list[Result]:
    """mIoU, mean accuracy over classes and accuracy over pixels, in percent, over the pixels of all test images."""
    assert isinstance(encoder, ImageEncoder) and isinstance(data.splits.truth, Masks), (
        "`fits` and `task` say so"
    )
    config: SegmentationConfig = own_settings(options, "segmentation")
    layers = (-4, -3, -2, -1) if config.blocks == "last4" else (-1,)
    seen = FrozenBackbone(encoder, layers, True, data.device, options.precision)
    widths = [shape[0] for _, shape in seen.widths((config.size, config.size))]
    num_classes = len(data.splits.truth.classes)
    if options.head is not None:
        head = read_segmentation_head(read_weights(options.head), widths, num_classes, str(options.head))
        head, folder = head.to(data.device), None
    else:
        with rng.seeded_torch(config.seed, "segmentation head"):
            head = SegmentationHead(widths, num_classes).to(data.device)
        folder = _learn(head, seen, data, config, options)
    confusion_KK = _test(head, seen, data, config, folder)
    names = ["size", "blocks", "scales", "flip"]
    protocol = choices(PROTOCOL, config, options, learned=["steps", "batch", "lr", *names], given=names)
    if config.mode == "fast" and options.head is None:
        protocol += f" stride={config.stride}"
    return [
        data.result("segmentation", metric, 100 * share, protocol=protocol, seed=config.seed)
        for metric, share in segmentation_scores(confusion_KK).items()
    ]


def segmentation_scores(confusion_KK: Int64[Tensor, "K K"]) -> dict[str, float]:
    """Shares in [0, 1]: miou first; a class that is neither there nor predicted counts in no mean.

    confusion_KK: pixels of each true class (row) that were taken for each class (column), over all images.
    Source: mmseg 0.30, intersect_and_union: sums over the whole test set, then ratios.
    """
    counts = confusion_KK.double()
    hits, true = counts.diagonal(), counts.sum(1)
    return {
        "miou": float(class_iou(confusion_KK).nanmean()),
        "mean_class_accuracy": float((hits / true).nanmean()),
        "pixel_accuracy": float(hits.sum() / true.sum()),
    }


def class_iou(confusion_KK: Int64[Tensor, "K K"]) -> Float64[Tensor, " K"]:
    """Intersection over union of each class, in [0, 1]; NaN for one that is neither there nor predicted."""
    counts = confusion_KK.double()
    return counts.diagonal() / (counts.sum(0) + counts.sum(1) - counts.diagonal())


def _learn(
    head: SegmentationHead,
    seen: FrozenBackbone,
    data: EvalData,
    config: SegmentationConfig,
    options: EvalOptions,
) -> Path | None:
    images, masks = data.train, data.splits.truth
    assert images is not None and isinstance(masks, Masks)

    def exact_loss(maps: list[TokenMaps], truth: Tensor, step: int) -> Tensor:
        return pixel_loss(head(maps), truth)

    def fast_loss(maps: list[TokenMaps], truth: Tensor, step: int) -> Tensor:
        row, column = rng.generator(config.seed, "pixels of the loss", step).integers(config.stride, size=2)
        return sampled_pixel_loss(head(maps), truth, stride=config.stride, offset=(int(row), int(column)))

    warmup = round(min(_WARMUP, config.steps * _WARMUP / _PUBLISHED_STEPS))
    facts = {
        "task": PROTOCOL,
        "blocks": config.blocks,
        "truth": dataclasses.asdict(masks),
        "size": config.size,
    }
    return train_or_load_head(
        head,
        fast_loss if config.mode == "fast" else exact_loss,
        seen=seen,
        cutting=CropSpec(
            images=images,
            cut=partial(_cut, masks, config.size),
            size=(config.size, config.size),
            beyond=IGNORED,
            truth_dtype=torch.uint8,
            seed=config.seed,
            facts={"cutting": PROTOCOL, "truth": dataclasses.asdict(masks), "seed": config.seed},
        ),
        schedule=Schedule(
            steps=config.steps,
            rate=lambda step: config.lr * poly(step, steps=config.steps, warmup=warmup),
            weight_decay=1e-4,
        ),
        config=config,
        options=options,
        facts=facts | ({"stride": config.stride} if config.mode == "fast" else {}),
        stored_truth=torch.uint8,
        cache=data.cache,
        what=f"{seen.encoder.name}  {data.name}",
    )


def _cut(
    masks: Masks, size: int, image: str, mask: str, draws: np.random.Generator
) -> tuple[UInt8[Tensor, "3 h w"], UInt8[Tensor, "h w"]]:
    pixels = read_pixels(image)
    truth = read_mask(mask, masks, size_of(pixels))
    return segmentation_views.training_view(pixels, truth, segmentation_views.draw(draws), size=size)


def _test(
    head: SegmentationHead,
    seen: FrozenBackbone,
    data: EvalData,
    config: SegmentationConfig,
    folder: Path | None,
) -> Int64[Tensor, "K K"]:
    """The confusion of classes over all test images; writes the panels, and the IoU of each class beside them."""
    from torchmetrics.classification import MulticlassConfusionMatrix

    masks, images = data.splits.truth, data.test
    assert isinstance(masks, Masks) and images.maps is not None
    num_classes = len(masks.classes)
    confusion = MulticlassConfusionMatrix(num_classes, ignore_index=IGNORED, validate_args=False).to(
        data.device
    )
    panels, shown = panels_of(config, folder, len(images))
    pairs = list(zip(images.paths, images.maps, strict=True))
    what = f"{seen.encoder.name}  {data.name} test"
    for number, (image, mask) in enumerate(with_progress(pairs, len(pairs), what)):
        pixels = read_pixels(image)
        truth = read_mask(mask, masks, size_of(pixels))
        found = segment(pixels, head, seen, config)
        confusion.update(found[None], truth[None].to(data.device).long())
        if number in shown:
            pictures = [pixels.permute(1, 2, 0).numpy()]  # (3, H, W) -> (H, W, 3)
            pictures += [coloured(part.byte().cpu().numpy(), masks.palette) for part in (truth, found)]
            write_panel(panels / f"{seen.encoder.name}-{Path(image).stem}.png", pictures)
    confusion_KK = confusion.compute().cpu()
    if shown:
        _write_classes(panels / f"{seen.encoder.name}.json", masks, confusion_KK)
        log.info("%s: images, truth and predictions side by side in %s", what, panels)
    return confusion_KK


@torch.no_grad()
def segment(
    image: UInt8[Tensor, "3 H W"], head: SegmentationHead, seen: FrozenBackbone, config: SegmentationConfig
) -> Int64[Tensor, "H W"]:
    """The class of each pixel: sliding windows on the resized image, scores brought back to its own size.

    With several scales or mirrored, the mean of the probabilities decides.
    """
    size = image.shape[1:]
    total = torch.zeros((), device=seen.device)
    for scale in config.scales:
        resized = segmentation_views.testing_view(image, size=int(config.size * scale))
        for mirrored in (False, True)[: 1 + config.flip]:
            scores = slide(
                resized.flip(-1) if mirrored else resized,
                lambda crops: head(seen(crops)),
                size=config.size,
                stride=config.window_stride,
                at_once=config.at_once,
            )
            scores = F.interpolate(scores[None], size, mode="bilinear", align_corners=False)[0]
            total = total + (scores.flip(-1) if mirrored else scores).softmax(0)
    return total.argmax(0)


def _write_classes(path: Path, masks: Masks, confusion_KK: Int64[Tensor, "K K"]) -> None:
    pixels = confusion_KK.sum(1).tolist()
    shares = [None if math.isnan(share) else share for share in class_iou(confusion_KK).tolist()]
    facts = zip(masks.classes, masks.palette, shares, pixels, strict=True)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        write_json(path, [
            {"class": name, "colour": colour, "iou": share, "pixels": count} for name, colour, share, count in facts
        ])  # fmt: skip
    except OSError as error:
        log.warning("%s is not written: %s", path, error)


EVALUATIONS.add(
    "segmentation",
    Evaluation(
        "segmentation",
        run,
        "linear head on the last block's patches, mIoU with sliding windows (DINOv2)",
        SegmentationConfig(),
        fits=lambda encoder: isinstance(encoder, ImageEncoder),
        task="segmentation",
    ),
)
