"""A head that learns once: found in the cache, or learned and kept there."""

import logging
import tempfile
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from unic.data.worker_processes import auto_workers
from unic.evals.artifact_cache import content_key, load_artifact, save_artifact
from unic.evals.dense.crop_batches import keys_of_step
from unic.evals.dense.crop_feature_store import store_crops
from unic.evals.dense.task import DenseTask
from unic.evals.dense.train_head import Batch, train_head
from unic.models.state_keys import below
from unic.models.weights import load_strictly

log = logging.getLogger(__name__)

PREFIX = "decode_head."
"""Of the names in the files of heads, as in those of mmseg, DINOv2 and UNIC."""


def train_or_load_head(
    head: nn.Module, task: DenseTask, *, workers: int | None, cache: Path | None, what: str
) -> Path | None:
    """Learns `head` in place, or takes what the cache has; gives the head's folder in the cache."""
    with ExitStack() as stack:
        root = cache or Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="unic-")))
        key = _key(task)
        folder = root / "heads" / key
        name = f"{what}: the head is"
        if load_artifact(folder, name, partial(_put_into, head)):
            log.info("%s: head from the cache, %s", what, folder)
            return folder
        source = _stored_batches if task.config.mode == "fast" else _new_batches
        train_head(
            head,
            source(task, auto_workers() if workers is None else workers, root),
            partial(task.loss, head),
            task.schedule,
            what=what,
            notes=root / "heads" / f"{key}.part" if cache else None,
        )
        if cache is None:
            return None
        tensors = {f"{PREFIX}{name}": tensor.detach().cpu() for name, tensor in head.state_dict().items()}
        facts = {**task.head_facts, "steps": task.schedule.steps, "encoder": task.backbone.encoder.name}
        save_artifact(folder, name, tensors, facts)
        log.info("%s: the head is in %s", what, folder)
        return folder


def _new_batches(task: DenseTask, workers: int, root: Path) -> Callable[[int], Iterator[Batch]]:
    """Crops are made and encoded for every step."""
    config, backbone, crops = task.config, task.backbone, task.crops

    def batches(start: int) -> Iterator[Batch]:
        keys_of = partial(keys_of_step, batch=config.batch, num_images=len(crops.images), seed=config.seed)
        steps = range(start, task.schedule.steps)
        pin_memory = backbone.device.type != "cpu"
        for views in crops.views(steps, keys_of, workers=workers, pin_memory=pin_memory):
            yield (
                backbone(views.pixels, views.inside),
                views.truth.to(backbone.device, non_blocking=True),
            )

    return batches


def _stored_batches(task: DenseTask, workers: int, root: Path) -> Callable[[int], Iterator[Batch]]:
    """Features of a fixed number of crops are computed once, kept below `root`, and read for every step."""
    config, crops = task.config, task.crops
    stored = store_crops(
        task.backbone,
        crops,
        num_views=config.views,
        bits=config.bits,
        truth_dtype=task.stored_truth,
        cache=root,
        batch_size=config.at_once,
        workers=workers,
    )

    def batches(start: int) -> Iterator[Batch]:
        for step in range(start, task.schedule.steps):
            keys = keys_of_step(step, config.batch, len(crops.images), config.seed, config.views)
            yield stored.read(keys, task.backbone.device)

    return batches


def _key(task: DenseTask) -> str:
    config, crops = task.config, task.crops
    facts = {
        "seen": task.backbone.facts([crops.size]),
        "images": crops.images.identity(),
        "cutting": crops.facts,
        "learning": [config.mode, config.steps, config.batch, config.lr, config.seed],
        **({"views": config.views, "bits": config.bits} if config.mode == "fast" else {}),
        **task.head_facts,
    }
    return content_key(facts)


def _put_into(head: nn.Module, tensors: dict[str, Tensor], _: Any) -> bool:
    load_strictly(head, below(PREFIX, tensors), "the kept head")
    head.eval()
    return True
