"""Features of images: several encoders and kinds of token in one pass, computed once, never used when anything changed.

Where they are kept is in feature_store.py.
Letters: M images of the list, B images of a batch, S images of a shard, D width.
"""

import contextlib
import itertools
import logging
import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any, Literal, NamedTuple

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor, nn

from unic.core import distributed
from unic.core.errors import DataError
from unic.core.progress import with_progress
from unic.data.eval_loader import evaluation_views
from unic.data.labeled_images import ImageList
from unic.data.worker_processes import auto_workers
from unic.evals.feature_store import InMemory, OnDisk, Place, batches_of, locked, shards_of
from unic.evals.registry import EvalOptions, Precision
from unic.method.types import Batch, Encoder, Tokens

log = logging.getLogger(__name__)

Token = Literal["cls", "patch_mean", "cls_patch_mean"]

VERSION = "features-1"
"""Change it when the same encoder and images give other features: it is part of every cache key."""
TRANSFORM = "resize shorter side bicubic, centre crop, 1"
"""What `evaluation_views` does to an image; change it with it."""


class _Kind(NamedTuple):
    width: Callable[[Encoder], int]
    read: Callable[[Tokens], Tensor]


_KINDS: dict[Token, _Kind] = {
    "cls": _Kind(lambda encoder: encoder.dim, lambda tokens: tokens.cls),
    "patch_mean": _Kind(lambda encoder: encoder.patch_dim, lambda tokens: tokens.patches.mean(1)),
    "cls_patch_mean": _Kind(
        lambda encoder: encoder.dim + encoder.patch_dim,
        lambda tokens: torch.cat([tokens.cls.float(), tokens.patches.mean(1).float()], dim=1),
    ),
}


class _Part(NamedTuple):
    """Features to compute: of which encoder, of which kind, and where they go."""

    encoder: Encoder
    token: Token
    place: Place


def extract(
    encoders: Sequence[Encoder],
    images: ImageList,
    options: EvalOptions,
    *,
    device: torch.device,
    cache_root: Path | None = None,
    tokens: Sequence[Token] = ("cls",),
) -> list[dict[Token, Float[Tensor, "M _"]]]:
    """Features of all images through each encoder; every image is decoded once for all of them.

    encoders: on `device` already; used in eval mode, and left in the mode they were in.
    options: their batch size, number of workers and precision count here.
    cache_root: features are kept in, and read by memory map from, cache_root/features, which all processes of a job
      must share; what an extraction that was cut short had finished is used. None neither reads nor writes.
    The processes of a job share the work, and each gets all features; their number changes no bit.
    Raises DataError for images that an encoder turns into NaN or infinity.
    """
    if not len(images):
        raise DataError(f"{images.name}: no images to encode")
    encode = partial(_encode, images, options, device)
    wanted = list(itertools.product(encoders, tokens))
    if cache_root is None:
        features = encode(_in_memory(wanted, len(images), device))
    else:
        facts = distributed.run_on_rank0(partial(_identities, wanted, images, options.precision))
        stored = [
            OnDisk(cache_root / "features", about, len(images), _KINDS[token].width(encoder))
            for (encoder, token), about in zip(wanted, facts, strict=True)
        ]
        features = _through_cache(wanted, stored, images, device, encode)
    in_order = iter(features)
    return [{token: next(in_order) for token in tokens} for _ in encoders]


def _in_memory(wanted: Iterable[tuple[Encoder, Token]], num_images: int, device: torch.device) -> list[_Part]:
    return [
        _Part(encoder, token, InMemory(num_images, _KINDS[token].width(encoder), device))
        for encoder, token in wanted
    ]


def _through_cache(
    wanted: Sequence[tuple[Encoder, Token]],
    stored: Sequence[OnDisk],
    images: ImageList,
    device: torch.device,
    encode: Callable[[Sequence[_Part]], list[Tensor]],
) -> list[Tensor]:
    """The features of each of `wanted`, from its place in the cache; those that are not there come there first."""
    places = {place.key: place for place in stored}
    pairs = {place.key: pair for pair, place in zip(wanted, stored, strict=True)}
    features: dict[str, Tensor | None] = {key: place.find() for key, place in places.items()}
    missing = [key for key in places if features[key] is None]
    names = dict.fromkeys(pairs[key][0].name for key in places if key not in missing)
    if names:
        log.info("%s  %s: features of %d images from the cache", ", ".join(names), images.name, len(images))
    with contextlib.ExitStack() as stack:
        try:
            stack.enter_context(locked([places[key] for key in missing]))
            features |= {key: places[key].find() for key in missing}  # another process may have been first
            missing = [key for key in missing if features[key] is None]
            for key in missing:
                stack.callback(places[key].leave)
                places[key].prepare()
            parts = [_Part(*pairs[key], places[key]) for key in missing]
        except OSError as error:
            stack.close()
            log.warning("features are not kept for next time: %s", error)
            parts = _in_memory((pairs[key] for key in missing), len(images), device)
        features |= dict(zip(missing, encode(parts) if parts else [], strict=True))
    in_order = [features[place.key] for place in stored]
    return [some for some in in_order if some is not None]


def _encode(
    images: ImageList, options: EvalOptions, device: torch.device, parts: Sequence[_Part]
) -> list[Tensor]:
    """Computes what the parts lack: on each process some of the shards, and of each image all that is lacking."""
    rank, world = distributed.rank(), distributed.world_size()
    shards = [
        shard for shard in shards_of(len(images)) if any(shard not in part.place.done for part in parts)
    ]
    mine = shards[rank::world]
    positions = [np.asarray(batch) for batch in batches_of(mine, options.batch_size)]
    encoders = list({id(part.encoder): part.encoder for part in parts}.values())
    sizes = sorted({encoder.image_size for encoder in encoders})
    workers = auto_workers() if options.workers is None else options.workers
    views = evaluation_views(images, sizes, positions, workers=workers, pin_memory=device.type != "cpu")
    num_left = sum(len(shard) for shard in mine)
    what = f"{', '.join(encoder.name for encoder in encoders)}  {images.name}"
    if world > 1:
        what += f" (process 1 of {world})"
    if num_done := len(images) - sum(len(shard) for shard in shards):
        log.info("%s: %d of %d images were done before", what, num_done, len(images))
    done = num_done if world == 1 else 0  # of several processes each counts its own
    steps = with_progress(views, done + num_left, what, size=lambda views: len(views[0].index), done=done)
    with contextlib.ExitStack() as stack:
        for encoder in encoders:
            stack.enter_context(_eval_mode(encoder))
        # One shard on every process, then the news of it: an error anywhere ends all of them soon.
        for number in range(math.ceil(len(shards) / world)):
            shard = mine[number] if number < len(mine) else range(0)
            lacking = [part for part in parts if shard not in part.place.done]
            distributed.run_on_all_ranks(
                partial(_encode_shard, shard, lacking, steps, images, device, options.precision)
            )
    assert next(steps, None) is None, "evaluation_views gave other images than those of the shards"
    return [part.place.complete() for part in parts]


def _encode_shard(
    shard: range,
    parts: Sequence[_Part],
    steps: Iterator[list[Batch]],
    images: ImageList,
    device: torch.device,
    precision: Precision,
) -> None:
    rows = [torch.zeros(len(shard), _KINDS[part.token].width(part.encoder)) for part in parts]
    done = 0
    while done < len(shard):
        views = next(steps)
        pixels = {batch.images.shape[-1]: batch.images.to(device, non_blocking=True) for batch in views}
        index = views[0].index
        output: dict[int, Tokens] = {}
        for part, part_rows in zip(parts, rows, strict=True):
            encoder = part.encoder
            if id(encoder) not in output:
                with (
                    torch.inference_mode(),
                    torch.autocast(device.type, torch.bfloat16, enabled=precision == "bf16"),
                ):
                    output[id(encoder)] = encoder(pixels[encoder.image_size])
            batch_rows = _KINDS[part.token].read(output[id(encoder)]).float().cpu()
            _check_finite(batch_rows, index, encoder, images)
            part_rows[index - shard.start] = batch_rows
        done += len(index)
    if shard:
        for part, part_rows in zip(parts, rows, strict=True):
            part.place.add(shard, part_rows)


@contextlib.contextmanager
def _eval_mode(encoder: Encoder) -> Iterator[None]:
    """Eval mode for the length of the block; each module then gets its own back (frozen parts may differ)."""
    modes = {m: m.training for m in encoder.modules()} if isinstance(encoder, nn.Module) else {}
    try:
        if isinstance(encoder, nn.Module):
            encoder.eval()
        yield
    finally:
        for module, training in modes.items():
            module.training = training


def _check_finite(rows: Float[Tensor, "B D"], index: Tensor, encoder: Encoder, images: ImageList) -> None:
    bad = ~rows.isfinite().all(dim=1)
    if bad.any():
        first = int(index[bad].min())
        raise DataError(
            f"{encoder.name} gives features that are not finite, first for {images.paths[first]}; "
            "try --precision fp32, or check the weights and that image"
        )


def _identities(
    wanted: Sequence[tuple[Encoder, Token]], images: ImageList, precision: Precision
) -> list[dict[str, Any]]:
    """Everything the features depend on, for each of `wanted`."""
    of_images = images.identity()
    content_hashes = {
        id(encoder): encoder.content_hash() for encoder in {id(e): e for e, _ in wanted}.values()
    }
    return [
        {
            "version": VERSION,
            "encoder": content_hashes[id(encoder)],
            "images": of_images,
            "image_size": encoder.image_size,
            "transform": TRANSFORM,
            "token": token,
            "precision": precision,
            "matmul": torch.get_float32_matmul_precision(),
        }
        for encoder, token in wanted
    ]
