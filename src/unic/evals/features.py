"""Features of a list of images: computed once, kept on disk, and never used when anything about them changed.

Letters: M images of the list, D width.
"""

import contextlib
import hashlib
import json
import logging
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Literal

import torch
from jaxtyping import Float
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from unic.data.images import ImageList
from unic.data.loader import auto_workers, evaluation_batches
from unic.errors import DataError, WeightsError
from unic.evals.progress import with_progress
from unic.run import check_folder, remove_folder, write_folder, write_json
from unic.tokens import Encoder

log = logging.getLogger(__name__)

Token = Literal["cls", "patch_mean"]
Precision = Literal["fp32", "bf16"]

VERSION = "features-1"
"""Change it when the same encoder and images give other features: it is part of every cache key."""
TRANSFORM = "resize shorter side bicubic, centre crop, 1"
"""What `evaluation_batches` does to an image; change it with it."""

_FILE = "features.safetensors"
_READ = {"cls": lambda tokens: tokens.cls, "patch_mean": lambda tokens: tokens.patches.mean(1)}


def extract(
    encoder: Encoder,
    images: ImageList,
    *,
    device: torch.device,
    batch_size: int = 256,
    workers: int | None = None,
    precision: Precision = "fp32",
    cache_root: Path | None = None,
    tokens: Sequence[Token] = ("cls",),
) -> dict[Token, Float[Tensor, "M _"]]:
    """float32 features of all images, in their order, on the CPU: one tensor for each kind of token.

    encoder: on `device` already; used in eval mode, and left in the mode it was in.
    cache_root: features are kept in, and read from, cache_root/features; None neither reads nor writes.
    Raises DataError for images the encoder turns into NaN or infinity.
    """
    if not len(images):
        raise DataError(f"{images.name}: no images to encode")
    if cache_root is None:
        return _encode(encoder, images, tokens, device, batch_size, workers, precision)
    facts = {token: _identity(encoder, images, token, precision) for token in tokens}
    folders = {token: cache_root / "features" / _key(facts[token]) for token in tokens}
    found = {token: _read(folders[token], len(images)) for token in tokens}
    features = {token: kept for token, kept in found.items() if kept is not None}
    missing: list[Token] = [token for token in tokens if token not in features]
    if missing:
        features |= _encode(encoder, images, missing, device, batch_size, workers, precision)
    else:
        log.info("%s  %s: features of %d images from the cache", encoder.name, images.name, len(images))
    for token in missing:
        _write(folders[token], features[token], facts[token])
    return {token: features[token] for token in tokens}


def _encode(
    encoder: Encoder,
    images: ImageList,
    tokens: Sequence[Token],
    device: torch.device,
    batch_size: int,
    workers: int | None,
    precision: Precision,
) -> dict[Token, Float[Tensor, "M _"]]:
    features: dict[Token, Tensor] = {}
    workers = auto_workers() if workers is None else workers
    batches = evaluation_batches(images, encoder.image_size, batch_size=batch_size, workers=workers)
    with _eval_mode(encoder):
        for batch in with_progress(batches, len(images), f"{encoder.name}  {images.name}"):
            pixels = batch.images.to(device, non_blocking=True)
            with (
                torch.inference_mode(),
                torch.autocast(device.type, torch.bfloat16, enabled=precision == "bf16"),
            ):
                output = encoder(pixels)
            for token in tokens:
                rows = _READ[token](output).float().cpu()
                _check_finite(rows, batch.index, encoder, images)
                if token not in features:
                    # Allocated outside inference mode, so that a classifier can be trained on it.
                    features[token] = torch.full((len(images), rows.shape[1]), torch.nan)
                features[token][batch.index] = rows
    for rows in features.values():
        assert not rows.isnan().any(), "evaluation_batches left images out"
    return features


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


def _identity(encoder: Encoder, images: ImageList, token: Token, precision: Precision) -> dict[str, Any]:
    """Everything the features depend on."""
    return {
        "version": VERSION,
        "encoder": encoder.fingerprint(),
        "images": images.identity(),
        "image_size": encoder.image_size,
        "transform": TRANSFORM,
        "token": token,
        "precision": precision,
        "matmul": torch.get_float32_matmul_precision(),
    }


def _key(facts: dict[str, Any]) -> str:
    return hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()


def _read(folder: Path, num_images: int) -> Float[Tensor, "M D"] | None:
    """Features from the cache; None when there are none, or damaged ones, which are removed."""
    if not folder.exists():
        return None
    try:
        check_folder(folder)
        features = load_file(folder / _FILE)["features"]
        if features.ndim != 2 or len(features) != num_images or features.dtype != torch.float32:
            raise WeightsError(f"{folder}: {features.dtype} {tuple(features.shape)} for {num_images} images")
        return features
    except (WeightsError, SafetensorError, OSError, KeyError) as error:
        log.warning("cached features are removed and computed again: %s", error)
        with contextlib.suppress(FileNotFoundError):  # another process was first
            remove_folder(folder)
        return None


def _write(folder: Path, features: Float[Tensor, "M D"], facts: dict[str, Any]) -> None:
    def fill(temporary: Path) -> None:
        save_file({"features": features}, temporary / _FILE)
        write_json(temporary / "features.json", facts)

    try:
        write_folder(folder, fill)
    except (OSError, SafetensorError) as error:
        # Another process may have kept the same features first; a full disk does not make them wrong.
        if not folder.exists():
            log.warning("features are not kept for next time: %s", error)
