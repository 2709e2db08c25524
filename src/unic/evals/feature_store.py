"""Where features go, shard by shard: into memory, or into a file that outlives a kill and is read by memory map.

cache/features/ KEY/ features.f32  manifest.json,  KEY.lock, and while they are computed:
.tmp-unic-KEY/ features.f32  shards-RANK.jsonl

features.f32 is M x D little-endian float32 and nothing else (features.u8: bytes, as their maker packed them); the
manifest has its shape, a sha256 for each shard, and everything the features depend on, of which KEY is the sha256.
Letters: M images, D width, S images of a shard.
"""

import contextlib
import errno
import hashlib
import json
import logging
import os
import shutil
from collections.abc import Iterable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import IO, Any

import torch
from filelock import FileLock, Timeout
from jaxtyping import Float, Shaped
from torch import Tensor

from unic.core import distributed
from unic.core.errors import DataError
from unic.core.files import MANIFEST, TEMPORARY, read_lines, remove_folder, write_atomically, write_json
from unic.evals.artifact_cache import content_key

log = logging.getLogger(__name__)

IMAGES_PER_SHARD = 2048
"""What a kill costs each process at most; and after so many images processes wait for each other. Few enough that none
waits for as long as a process group allows, many enough that waiting and short last batches cost nothing."""

_FILES = {torch.float32: "features.f32", torch.uint8: "features.u8"}
_DTYPES = {torch.float32: "<f4", torch.uint8: "|u1"}
_SECONDS_BETWEEN_TRIES = 30.0  # processes of one job must hear from each other while one waits for a lock


def shards_of(num_images: int, per_shard: int | None = None) -> list[range]:
    """Consecutive positions; they depend on no number of processes, and so neither do batches cut out of them.

    per_shard: IMAGES_PER_SHARD when not given.
    """
    step = per_shard or IMAGES_PER_SHARD
    return [range(start, min(start + step, num_images)) for start in range(0, num_images, step)]


def batches_of(shards: Iterable[range], batch_size: int) -> list[range]:
    """The positions of the shards in batches, none of which reaches over the end of a shard.

    So they are the same, whichever process computes a shard, and after a kill.
    """
    return [
        shard[start : start + batch_size] for shard in shards for start in range(0, len(shard), batch_size)
    ]


class InMemory:
    """Features that are not kept for next time. Every process comes to hold all of them.

    All processes of a job call the methods together, as those of `OnDisk`. done: shards that need not be computed.
    """

    def __init__(self, num_images: int, width: int, device: torch.device):
        self.done: frozenset[range] = frozenset()
        self._device = device
        self._features = torch.zeros(num_images, width)

    def add(self, shard: range, rows: Float[Tensor, "S D"]) -> None:
        """Called by one process, which must be the only one for that shard."""
        self._features[shard.start : shard.stop] = rows

    def complete(self) -> Float[Tensor, "M D"]:
        """All features, on the CPU, once every shard was added somewhere."""
        if distributed.world_size() > 1:
            for shard in shards_of(len(self._features)):
                # Added as integers: those of all other processes are 0, so that every bit arrives as it was.
                bits = self._features[shard.start : shard.stop].view(torch.int32)
                bits.copy_(distributed.all_reduce_(bits.to(self._device, copy=True)))
        return self._features


class OnDisk:
    """Features in the cache.

    facts: everything they depend on; the name of their folder is its hash.
    dtype: float32, or bytes.
    """

    def __init__(
        self,
        root: Path,
        facts: dict[str, Any],
        num_images: int,
        width: int,
        *,
        dtype: torch.dtype = torch.float32,
        per_shard: int | None = None,
    ):
        self.done: frozenset[range] = frozenset()
        self.key = content_key(facts)
        self.folder = root / self.key
        self._part = root / f"{TEMPORARY}{self.key}"
        self._facts = facts
        self._shape = (num_images, width)
        self._dtype = dtype
        self._file = _FILES[dtype]
        self._per_shard = per_shard
        self._row_bytes = dtype.itemsize * width
        self._num_bytes = num_images * self._row_bytes
        self._problem: str | None = None

    def find(self) -> Shaped[Tensor, "M D"] | None:
        """The features, if all are here and undamaged.

        Every byte is compared with its sum, each time: 2 to 3 seconds for ImageNet's 4 GB, which those who asked
        are about to read anyway; a disk that loses bits does not change a file's time.
        """
        self._problem = distributed.run_on_rank0(self._why_not)
        return None if self._problem else self._mapped()

    def prepare(self) -> None:
        """Makes room for all features, or takes up what an earlier process left; removes damaged ones.

        Only between `locked` and its end. Raises OSError where there is no room.
        """
        self.done = distributed.run_on_rank0(self._prepare)

    def add(self, shard: range, rows: Shaped[Tensor, "S D"]) -> None:
        """On the disk, and recorded there after that, when this returns."""
        assert rows.shape == (len(shard), self._shape[1]), f"{tuple(rows.shape)} for {shard}"
        content = rows.contiguous().numpy().tobytes()
        try:
            with (self._part / self._file).open("r+b") as file:
                file.seek(shard.start * self._row_bytes)
                file.write(content)
                _flush(file)
            with (self._part / f"shards-{distributed.rank()}.jsonl").open("a") as lines:
                lines.write(_line(shard, hashlib.sha256(content).hexdigest()))
                _flush(lines)
        except OSError as error:
            raise DataError(
                f"features cannot be written to {self._part} ({error.strerror or error}); what is there is kept: "
                "make room and start again"
            ) from error

    def complete(self) -> Shaped[Tensor, "M D"]:
        """Seals the features, gives them their name, and maps them."""
        distributed.run_on_rank0(self._seal)
        return self._mapped()

    def leave(self) -> None:
        """Gives back the room of features of which no shard was finished."""
        records = self._part.glob("shards-*.jsonl")
        if distributed.is_main() and not any(file.stat().st_size for file in records):
            shutil.rmtree(self._part, ignore_errors=True)

    def _mapped(self) -> Shaped[Tensor, "M D"]:
        """Read where it is touched. Copied where it is written to: nobody can damage the cache."""
        return distributed.run_on_all_ranks(self._map)

    def _map(self) -> Shaped[Tensor, "M D"]:
        path = self.folder / self._file
        if not path.is_file():
            raise DataError(
                f"{path}: not seen by process {distributed.rank()}; all processes must share the cache"
            )
        num_images, width = self._shape
        flat = torch.from_file(str(path), shared=False, size=num_images * width, dtype=self._dtype)
        return flat.view(num_images, width)

    def _why_not(self) -> str | None:
        """Why the cache cannot be used, in words for the user; None when it can."""
        file = self.folder / self._file
        try:
            manifest = json.loads((self.folder / MANIFEST).read_text())
            sums = _sums(manifest["shards"])
            borders = sorted((shard.start, shard.stop) for shard in sums)
            whole = [0, *(stop for _, stop in borders)] == [*(start for start, _ in borders), self._shape[0]]
            if manifest["facts"] != self._facts or manifest["shape"] != list(self._shape) or not whole:
                return f"{self.folder} is damaged ({MANIFEST} is not that of these features)"
            if file.stat().st_size != self._num_bytes:
                return f"{file} is damaged ({file.stat().st_size} bytes, expected {self._num_bytes})"
            if not all(self._holds(file, shard, digest) for shard, digest in sums.items()):
                return f"{file} is damaged (its sha256 is not the one in {MANIFEST})"
        except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
            return f"{self.folder} is damaged ({type(error).__name__}: {error})"
        return None

    def _holds(self, file: Path, shard: range, digest: str) -> bool:
        with file.open("rb") as content:
            content.seek(shard.start * self._row_bytes)
            return hashlib.sha256(content.read(len(shard) * self._row_bytes)).hexdigest() == digest

    def _prepare(self) -> frozenset[range]:
        if self.folder.exists():
            log.warning("cached features are removed and computed again: %s", self._problem)
            remove_folder(self.folder)
        file = self._part / self._file
        if file.is_file() and file.stat().st_size == self._num_bytes:
            return self._taken_up()
        if self._part.exists():
            shutil.rmtree(self._part)
        self._part.mkdir(parents=True)
        _allocate(file, self._num_bytes)
        return frozenset()

    def _taken_up(self) -> frozenset[range]:
        """The shards of an earlier process that are on the disk as it recorded them; forgets the others."""
        earlier = sorted(self._part.glob("shards-*.jsonl"))
        wanted = set(shards_of(self._shape[0], self._per_shard))
        try:
            sums = _sums(record for lines in earlier for record in read_lines(lines))
        except (KeyError, TypeError):  # a damaged record
            sums = {}
        file = self._part / self._file
        shards = {
            shard: digest
            for shard, digest in sums.items()
            if shard in wanted and self._holds(file, shard, digest)
        }
        write_atomically(self._part / "shards-0.jsonl", "".join(map(_line, shards, shards.values())).encode())
        for lines in earlier:
            if lines.name != "shards-0.jsonl":
                lines.unlink()
        return frozenset(shards)

    def _seal(self) -> None:
        # By name: a network file system may list a folder as it was a minute ago.
        files = [self._part / f"shards-{rank}.jsonl" for rank in range(distributed.world_size())]
        records = [record for file in files if file.exists() for record in read_lines(file)]
        missing = set(shards_of(self._shape[0], self._per_shard)) - set(_sums(records))
        if missing:
            raise DataError(
                f"{self._part} lacks {len(missing)} shards that other processes wrote; the cache must be on a file "
                "system that all processes share"
            )
        manifest = {
            "facts": self._facts,
            "dtype": _DTYPES[self._dtype],
            "shape": self._shape,
            "shards": records,
        }
        write_json(self._part / MANIFEST, manifest)
        self._part.rename(self.folder)
        for file in files:
            (self.folder / file.name).unlink(missing_ok=True)


Place = InMemory | OnDisk
"""Where the features of one encoder and kind of token go."""


@contextlib.contextmanager
def locked(stored: Sequence[OnDisk]) -> Iterator[None]:
    """Waits until no other job computes these features, and keeps others from it for the length of the block.

    Raises OSError where a lock cannot be written.
    """
    # In the same order everywhere, so that no two jobs wait for each other.
    locks = [FileLock(path) for path in sorted(place.folder.with_suffix(".lock") for place in stored)]
    try:
        for lock in locks:
            while not distributed.run_on_rank0(partial(_acquired, lock)):
                pass
        yield
    finally:
        for lock in locks:
            lock.release()


def _acquired(lock: FileLock) -> bool:
    path = Path(lock.lock_file)
    path.parent.mkdir(parents=True, exist_ok=True)
    try:
        lock.acquire(timeout=0.2)
    except Timeout:
        log.info("features %s: another process computes them; waiting for that", path.stem[:12])
        try:
            lock.acquire(timeout=_SECONDS_BETWEEN_TRIES)
        except Timeout:
            return False
    return True


def _sums(records: Iterable[dict[str, Any]]) -> dict[range, str]:
    return {range(record["start"], record["stop"]): record["sha256"] for record in records}


def _line(shard: range, digest: str) -> str:
    return json.dumps({"start": shard.start, "stop": shard.stop, "sha256": digest}) + "\n"


def _allocate(path: Path, num_bytes: int) -> None:
    """A file of this size, with room for it on the disk where the system can promise that."""
    with path.open("wb") as file:
        try:
            os.posix_fallocate(file.fileno(), 0, num_bytes)
        except (AttributeError, OSError) as error:  # macOS has no such function
            if isinstance(error, OSError) and error.errno not in (
                errno.EOPNOTSUPP,
                errno.EINVAL,
                errno.ENOSYS,
            ):
                raise
            file.truncate(num_bytes)


def _flush(file: IO[Any]) -> None:
    file.flush()
    os.fsync(file.fileno())
