"""Features of a fixed number of crops of every image, computed once and kept on disk: what makes learning fast.

A row holds all of one crop: of each layer the patches, in 8 or 16 bits a number, and CLS, in 16; then its truth.
Letters: B crops, R bytes of a row, V all crops.
"""

import logging
import math
import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from jaxtyping import Int64, Shaped, UInt8
from torch import Tensor

from unic.core.errors import ConfigError, DataError
from unic.core.progress import with_progress
from unic.evals.dense.config import Bits
from unic.evals.dense.crop_batches import CropSpec
from unic.evals.dense.frozen_backbone import FrozenBackbone
from unic.evals.feature_store import OnDisk, batches_of, locked, shards_of
from unic.method.types import TokenMaps

log = logging.getLogger(__name__)

VERSION = "crops-1"

_LARGEST_FP8 = 448.0  # of float8_e4m3fn
_BYTES_PER_SHARD = 2**26
_FREE_BYTES = 2**30  # left for others


@dataclass(frozen=True)
class Packing:
    """How the features and the truth of a crop lie in a row of bytes.

    layers: for each the width of CLS, and the shape of the map of patches.
    truth: the shape of the truth; `truth_dtype` in which it is kept.
    """

    layers: tuple[tuple[int, tuple[int, ...]], ...]
    truth: tuple[int, int]
    truth_dtype: torch.dtype
    bits: Bits

    @property
    def row_bytes(self) -> int:
        return sum(math.prod(shape) * dtype.itemsize for shape, dtype in self._parts)

    def pack(self, maps: Sequence[TokenMaps], truth: Shaped[Tensor, "B H W"]) -> UInt8[Tensor, "B R"]:
        """On the CPU. With 8 bits the numbers of a crop share one scale, at which its largest is the format's."""
        parts: list[Tensor] = []
        for layer in maps:
            patches = layer.patches
            scale = torch.ones(len(patches), device=patches.device)
            if self.bits == "fp8":
                scale = (_LARGEST_FP8 / patches.abs().flatten(1).amax(1)).clamp(max=1e30)
            parts += [scale, layer.cls, patches * scale[:, None, None, None]]
        parts.append(truth)
        rows = [
            part.to(dtype).cpu().reshape(len(truth), -1).contiguous().view(torch.uint8)
            for part, (_, dtype) in zip(parts, self._parts, strict=True)
        ]
        return torch.cat(rows, dim=1)

    def unpack(
        self, rows: UInt8[Tensor, "B R"], device: torch.device
    ) -> tuple[list[TokenMaps], Shaped[Tensor, "B H W"]]:
        """float32 maps and the truth, on the device, where the numbers are turned back."""
        rows = rows.to(device, non_blocking=True)
        parts, start = [], 0
        for shape, dtype in self._parts:
            stop = start + math.prod(shape) * dtype.itemsize
            parts.append(rows[:, start:stop].contiguous().view(dtype).reshape(len(rows), *shape))
            start = stop
        *features, truth = parts
        maps = [
            TokenMaps(cls.float(), patches.float() / scale[:, None, None])
            for scale, cls, patches in zip(features[::3], features[1::3], features[2::3], strict=True)
        ]
        return maps, truth

    @property
    def _parts(self) -> list[tuple[tuple[int, ...], torch.dtype]]:
        patches = torch.float8_e4m3fn if self.bits == "fp8" else torch.bfloat16
        parts: list[tuple[tuple[int, ...], torch.dtype]] = []
        for width, shape in self.layers:
            parts += [((1,), torch.float32), ((width,), torch.bfloat16), (shape, patches)]
        return [*parts, (self.truth, self.truth_dtype)]


@dataclass(frozen=True)
class StoredCrops:
    """All crops of all images: row = number * images + position; read by memory map."""

    rows: UInt8[Tensor, "V R"]
    packing: Packing
    num_images: int

    def read(
        self, keys: Sequence[tuple[int, int]], device: torch.device
    ) -> tuple[list[TokenMaps], Shaped[Tensor, "B H W"]]:
        numbers: Int64[Tensor, " B"] = torch.tensor(
            [number * self.num_images + position for position, number in keys]
        )
        return self.packing.unpack(self.rows[numbers], device)


def store_crops(
    backbone: FrozenBackbone,
    crops: CropSpec,
    *,
    num_views: int,
    bits: Bits,
    truth_dtype: torch.dtype,
    cache: Path,
    batch_size: int,
    workers: int,
) -> StoredCrops:
    """Features of crops 0 to `num_views` - 1 of every image: from the cache, or computed and kept there.

    An extraction that was cut short goes on where it was. Raises ConfigError where the disk has no room for them.
    """
    packing = Packing(tuple(backbone.widths(crops.size)), crops.size, truth_dtype, bits)
    num_images = len(crops.images)
    num_rows, row_bytes = num_views * num_images, packing.row_bytes
    facts = {
        "version": VERSION,
        "seen": backbone.facts([crops.size]),
        "images": crops.images.identity(),
        "views": num_views,
        "bits": bits,
        **crops.facts,
    }
    per_shard = max(_BYTES_PER_SHARD // row_bytes, 1)
    place = OnDisk(cache / "features", facts, num_rows, row_bytes, dtype=torch.uint8, per_shard=per_shard)
    what = f"{backbone.encoder.name}  {crops.images.name}"
    rows = place.find()
    if rows is None:
        _check_room(what, place.folder.parent, num_rows, row_bytes)
        try:
            with locked([place]):
                rows = place.find()
                if rows is None:
                    place.prepare()
                    shards = shards_of(num_rows, per_shard)
                    _compute(
                        backbone, crops, packing, place, shards, what, batch_size=batch_size, workers=workers
                    )
                    rows = place.complete()
        except OSError as error:
            raise DataError(
                f"features cannot be kept in {place.folder.parent} ({error.strerror or error}); set UNIC_CACHE to a "
                f"folder with room, or learn without them (mode exact)"
            ) from error
    else:
        log.info("%s: features of %d crops from the cache", what, num_rows)
    return StoredCrops(rows, packing, num_images)


def _compute(
    backbone: FrozenBackbone,
    crops: CropSpec,
    packing: Packing,
    place: OnDisk,
    shards: Sequence[range],
    what: str,
    *,
    batch_size: int,
    workers: int,
) -> None:
    num_images = len(crops.images)
    missing = [shard for shard in shards if shard not in place.done]
    batches = batches_of(missing, batch_size)
    keys = [[(row % num_images, row // num_images) for row in batch] for batch in batches]
    total = sum(map(len, shards))
    done = total - sum(map(len, batches))
    views = crops.views(
        range(len(keys)), keys.__getitem__, workers=workers, pin_memory=backbone.device.type != "cpu"
    )
    steps = with_progress(views, total, what, unit="crops", size=lambda batch: len(batch.truth), done=done)
    for shard in missing:
        rows: list[Tensor] = []
        while sum(map(len, rows)) < len(shard):
            batch = next(steps)
            rows.append(packing.pack(_finite(backbone(batch.pixels, batch.inside), what), batch.truth))
        place.add(shard, torch.cat(rows))
    assert next(steps, None) is None, "the loader gave crops that belong to no shard"


def _finite(maps: list[TokenMaps], what: str) -> list[TokenMaps]:
    if not all(bool(part.isfinite().all()) for layer in maps for part in (layer.cls, layer.patches)):
        raise DataError(f"{what}: features that are not finite; try --precision fp32, or check the weights")
    return maps


def _check_room(what: str, folder: Path, num_rows: int, row_bytes: int) -> None:
    there = next(parent for parent in (folder, *folder.parents) if parent.exists())
    free, needed = shutil.disk_usage(there).free, num_rows * row_bytes
    log.info(
        "%s: %d crops take %.2f GB in %s (%.1f GB free)", what, num_rows, needed / 1e9, folder, free / 1e9
    )
    if needed + _FREE_BYTES > free:
        raise ConfigError(
            f"{what}: features of {num_rows} crops take {needed / 1e9:.1f} GB and {folder} has {free / 1e9:.1f} GB "
            f"free; take fewer views, fp8, a cache elsewhere (UNIC_CACHE), or mode exact, which keeps none"
        )
