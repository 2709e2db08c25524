"""What segmentation and depth share: their settings, and how a head comes to be: read, found in the cache, or learned.

Letters: B crops, H W pixels.
"""

import hashlib
import json
import logging
import tempfile
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Literal

import torch
from jaxtyping import Float, Shaped
from torch import Tensor, nn

from unic.core.errors import ConfigError, WeightsError
from unic.core.files import file_sha256
from unic.data.worker_processes import auto_workers
from unic.evals.api import EvalOptions
from unic.evals.artifact_cache import load_artifact, save_artifact
from unic.evals.dense.crop_batches import CropSpec, keys_of_step
from unic.evals.dense.crop_feature_store import Bits, store_crops
from unic.evals.dense.frozen_backbone import FrozenBackbone
from unic.evals.dense.train_head import Batch, Schedule, train_head
from unic.method.tokens import TokenMaps
from unic.models.weights import below

log = logging.getLogger(__name__)

PREFIX = "decode_head."
"""Of the names in the files of heads, as in those of mmseg, DINOv2 and UNIC."""


@dataclass(frozen=True, kw_only=True)
class DenseConfig:
    """How a head is learned; each task has its defaults. Results name what differs from the published protocol."""

    mode: Literal["fast", "exact"] = "fast"
    """exact: new crops at every step, as published. fast: features of `views` crops of each image, computed once."""
    steps: int
    batch: int
    """Crops a step."""
    lr: float
    views: int = 8
    """Crops of each image that `fast` keeps."""
    bits: Bits = "fp8"
    """Number format of the features that `fast` keeps; bf16 takes twice the disk."""
    seed: int = 0
    """Of the crops, their order, and the head before it has learned."""
    at_once: int = 8
    """Crops or windows encoded at a time, where only time and memory depend on it."""
    panels: int = 4
    """Test images to show beside their truth and prediction, as PNG files."""
    panels_to: Path | None = None
    """Folder for them; beside the head in the cache when not given."""

    def __post_init__(self) -> None:
        for name in ("steps", "batch", "views", "at_once"):
            if getattr(self, name) < 1:
                raise ConfigError(f"{name} {getattr(self, name)} of a dense evaluation: expected 1 or more")
        if not self.lr > 0:
            raise ConfigError(f"lr {self.lr} of a dense evaluation: expected more than 0")
        if self.panels < 0:
            raise ConfigError(f"panels {self.panels} of a dense evaluation: expected 0 or more")


Loss = Callable[[list[TokenMaps], Shaped[Tensor, "B H W"], int], Float[Tensor, ""]]


def train_or_load_head(
    head: nn.Module,
    loss: Loss,
    *,
    seen: FrozenBackbone,
    cutting: CropSpec,
    schedule: Schedule,
    config: DenseConfig,
    options: EvalOptions,
    facts: dict[str, Any],
    stored_truth: torch.dtype,
    cache: Path | None,
    what: str,
) -> Path | None:
    """Learns `head` in place, or takes what the cache has; gives the head's folder in the cache.

    facts: everything the result depends on, beside what is named here.
    stored_truth: number format in which `fast` keeps the truth.
    """
    with ExitStack() as stack:
        root = cache or Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="unic-")))
        key = _key(seen, cutting, config, facts)
        folder = root / "heads" / key
        name = f"{what}: the head is"
        if load_artifact(folder, name, partial(_put_into, head)):
            log.info("%s: head from the cache, %s", what, folder)
            return folder
        source = _stored if config.mode == "fast" else _afresh
        workers = auto_workers() if options.workers is None else options.workers
        batches = source(seen, cutting, config, schedule.steps, workers, stored_truth, root)
        train_head(
            head, batches, loss, schedule, what=what, notes=root / "heads" / f"{key}.part" if cache else None
        )
        if cache is None:
            return None
        tensors = {f"{PREFIX}{name}": tensor.detach().cpu() for name, tensor in head.state_dict().items()}
        save_artifact(folder, name, tensors, {**facts, "steps": schedule.steps, "encoder": seen.encoder.name})
        log.info("%s: the head is in %s", what, folder)
        return folder


def choices(
    protocol: str, config: DenseConfig, options: EvalOptions, *, learned: list[str], given: list[str]
) -> str:
    """The protocol, and after it every setting that is not the published one.

    learned: settings that matter to a head that is learned here; given: those that matter to one from a file.
    """
    default = type(config)()  # type: ignore[call-arg]  # every task has defaults for all
    words = [protocol]
    if options.head is not None:
        words.append(f"head={file_sha256(options.head)[:12]}")
    elif config.mode == "fast":
        words.append(f"fast views={config.views} {config.bits}")
    for name in given if options.head is not None else learned:
        value = getattr(config, name)
        if value != getattr(default, name):
            words.append(f"{name}={','.join(map(str, value)) if isinstance(value, tuple) else value}")
    return " ".join(words)


def _afresh(
    seen: FrozenBackbone,
    cutting: CropSpec,
    config: DenseConfig,
    steps: int,
    workers: int,
    _: torch.dtype,
    __: Path,
) -> Callable[[int], Iterator[Batch]]:
    """Crops are made and encoded for every step."""

    def batches(start: int) -> Iterator[Batch]:
        keys_of = partial(keys_of_step, batch=config.batch, num_images=len(cutting.images), seed=config.seed)
        pin_memory = seen.device.type != "cpu"
        for views in cutting.views(range(start, steps), keys_of, workers=workers, pin_memory=pin_memory):
            yield seen(views.pixels, views.inside), views.truth.to(seen.device, non_blocking=True)

    return batches


def _stored(
    seen: FrozenBackbone,
    cutting: CropSpec,
    config: DenseConfig,
    steps: int,
    workers: int,
    truth: torch.dtype,
    root: Path,
) -> Callable[[int], Iterator[Batch]]:
    """Features of a fixed number of crops are computed once, and read for every step."""
    stored = store_crops(
        seen,
        cutting,
        num_views=config.views,
        bits=config.bits,
        truth_dtype=truth,
        cache=root,
        batch_size=config.at_once,
        workers=workers,
    )

    def batches(start: int) -> Iterator[Batch]:
        num_images = len(cutting.images)
        for step in range(start, steps):
            keys = keys_of_step(step, config.batch, num_images, config.seed, config.views)
            yield stored.read(keys, seen.device)

    return batches


def _key(seen: FrozenBackbone, cutting: CropSpec, config: DenseConfig, facts: dict[str, Any]) -> str:
    of_store = {"views": config.views, "bits": config.bits} if config.mode == "fast" else {}
    everything = {
        "seen": seen.facts([cutting.size]),
        "images": cutting.images.identity(),
        "cutting": cutting.facts,
        "learning": [config.mode, config.steps, config.batch, config.lr, config.seed],
        **of_store,
        **facts,
    }
    return hashlib.sha256(json.dumps(everything, sort_keys=True).encode()).hexdigest()


def _put_into(head: nn.Module, tensors: dict[str, Tensor], _: Any) -> bool:
    try:
        head.load_state_dict(below(PREFIX, tensors))
    except RuntimeError as error:
        raise WeightsError("the weights of another head") from error
    head.eval()
    return True
