"""Published weights, from the network to this machine: whole or not at all.

$UNIC_WEIGHTS/ x.pth  x.pth.sha256  x.pth.lock, and while x.pth is on its way: .tmp-unic-x.pth  .tmp-unic-x.pth.json

A fetch that was cut short goes on where it stopped. UNIC_MIRROR in the environment names another place to ask: a base
URL, or a folder whose files are used where they lie.
"""

import logging
import os
import re
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple
from urllib.parse import quote, unquote, urlsplit

from unic.core.cache_dir import cache_dir
from unic.core.errors import ConfigError, WeightsError
from unic.core.files import file_sha256, write_atomically
from unic.core.locks import wait_until_unlocked
from unic.teachers.download import Download, FailedError

log = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class WeightsFile:
    """A published file of weights, and where it lies on this machine."""

    name: str
    """Here and on a mirror; unique over all teachers."""
    url: str
    sha256: str | None = None
    """The whole digest or a published beginning of it, at least 8 hex digits; None: recorded at first use."""
    size: int | None = None
    """Bytes, where the exact number is published."""

    def __post_init__(self):
        if not self.name or Path(self.name).name != self.name:
            raise ConfigError(f"weights need a file name without folders, got {self.name!r}")
        if urlsplit(self.url).scheme not in ("http", "https"):
            raise ConfigError(f"{self.name}: weights are fetched over http or https, got {self.url!r}")
        if self.sha256 is not None and not re.fullmatch(r"[0-9a-f]{8,64}", self.sha256):
            raise ConfigError(f"{self.name}: sha256 must be 8 to 64 digits of 0-9a-f, got {self.sha256!r}")

    def __call__(self) -> Path:
        """The file, fetched first when it is not here. Errors are those of `fetch`."""
        return fetch(self)

    def here(self) -> Path | None:
        """The file on this machine, if it is there, in a mirror's folder too. Nothing is read or asked."""
        places = [weights_dir(), mirror] if isinstance(mirror := _mirror(), Path) else [weights_dir()]
        return next((place / self.name for place in places if (place / self.name).is_file()), None)


def weights_dir() -> Path:
    """$UNIC_WEIGHTS, or the folder weights in the cache."""
    return Path(os.environ.get("UNIC_WEIGHTS") or cache_dir() / "weights")


def fetch(file: WeightsFile, *, verify: bool = False) -> Path:
    """The file on this machine, fetched first when it is not here.

    verify: compute the sha256 of a file that was checked before once more.
    Raises FileNotFoundError saying what to put where when it cannot be had, WeightsError when it is another file than
    the published one, ConfigError when it cannot be written, or when UNIC_MIRROR names no mirror.
    """
    path = file.here()
    if path is not None:
        _check(file, path, verify)
        return path
    mirror = _mirror()
    target = weights_dir() / file.name
    if isinstance(mirror, Path):
        raise FileNotFoundError(
            f"{mirror} (UNIC_MIRROR) has no {file.name}; put it there{_facts(file)}, or at {target}; "
            f"it is published at {file.url}"
        )
    url = f"{mirror}/{quote(file.name)}" if mirror else file.url
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        lock = target.with_name(f"{target.name}.lock")
        with wait_until_unlocked(lock, f"{target.name}: another process is fetching it; waiting for that"):
            if target.is_file():  # another process has fetched it
                _check(file, target, verify)
            else:
                download = Download(url, target, size=file.size, is_checked=bool(file.sha256 or file.size))
                download.complete()
                _move_into_place(download, file, target)
    except FailedError as failed:
        kept = " (what came is kept; the next call goes on from there)" if failed.part_is_kept else ""
        raise FileNotFoundError(
            f"{file.name} is not here and cannot be fetched from {url}: {failed}{kept}; "
            f"try again, or download it elsewhere{_facts(file)} and put it at {target}"
        ) from failed
    except OSError as error:
        raise ConfigError(
            f"{file.name}{_facts(file)} cannot be written into {target.parent} ({error.strerror or error}); "
            f"make room there, or set UNIC_WEIGHTS to another folder"
        ) from error
    return target


def _facts(file: WeightsFile) -> str:
    """What is published about a file, for people who have to find it: " (18.7 MB, sha256 0123...)" or nothing."""
    facts = [f"{file.size / 1e6:.1f} MB"] if file.size else []
    facts += [f"sha256 {file.sha256}{'...' if len(file.sha256) < 64 else ''}"] if file.sha256 else []
    return f" ({', '.join(facts)})" if facts else ""


def _mirror() -> Path | str | None:
    """The folder or base URL to ask instead of the published addresses."""
    text = os.environ.get("UNIC_MIRROR")
    if not text:
        return None
    url = urlsplit(text)
    if url.scheme in ("http", "https") and url.netloc:
        return text.rstrip("/")
    folder = Path(unquote(url.path) if url.scheme == "file" and url.netloc in ("", "localhost") else text)
    if not folder.is_dir():
        raise ConfigError(
            f"UNIC_MIRROR={text}: no such folder; wanted a folder, file:///folder or http(s)://host/path"
        )
    return folder


def _move_into_place(download: Download, file: WeightsFile, target: Path) -> None:
    part = download.part
    digest = file_sha256(part)
    wrong = _difference(file, digest, part.stat().st_size, _read_record(target))
    if wrong:
        bad = target.with_name(f"{target.name}.bad")
        part.replace(bad)
        download.discard()
        raise WeightsError(
            f"{download.url} is not the file expected: {wrong}; what came is kept as {bad}; "
            f"try again, or set UNIC_MIRROR to another place that has it"
        )
    part.replace(target)
    download.discard()
    _write_record(target, digest)


def _check(file: WeightsFile, path: Path, again: bool) -> None:
    """Compares a file that is here with what is published or recorded, unless that was done since it changed."""
    record = _read_record(path)
    if record and record.seen == _seen(path) and record.sha256.startswith(file.sha256 or "") and not again:
        return
    if not (record or file.sha256 or file.size or again or os.access(_record_path(path).parent, os.W_OK)):
        return  # nothing to compare with, and no place to record what it is
    digest = file_sha256(path)
    wrong = _difference(file, digest, path.stat().st_size, record)
    if wrong:
        raise WeightsError(f"{path} is not the file expected: {wrong}; remove it to fetch it again")
    _write_record(path, digest)


class _Record(NamedTuple):
    """What a check has found: a line of sha256sum below a comment, so that `sha256sum -c` reads it too."""

    path: Path
    sha256: str
    seen: str | None
    """Size and time of the file when it was checked: with the same ones it need not be read again."""


def _difference(file: WeightsFile, digest: str, size: int, record: _Record | None) -> str:
    """What differs from the published facts, or from the record where they leave something open; "" for nothing."""
    published = file.sha256 or ""
    if file.size and size != file.size:
        return f"it has {size} bytes, {file.size} are published"
    if not digest.startswith(published):
        return f"its sha256 is {digest}, {published} is published"
    if record and record.sha256 != digest and record.sha256.startswith(published):
        return (
            f"its sha256 is {digest}, {record.sha256} was recorded before (remove {record.path} if another "
            f"version is welcome)"
        )
    return ""


def _record_path(path: Path) -> Path:
    """In our own folder, also for a file that lies in a mirror's: that one is not ours to write to."""
    return weights_dir() / f"{path.name}.sha256"


def _seen(path: Path) -> str:
    facts = path.stat()
    return f"# {facts.st_size} bytes, changed at {facts.st_mtime_ns} ns"


def _read_record(path: Path) -> _Record | None:
    record = _record_path(path)
    if not record.exists():
        return None
    lines = record.read_text(errors="replace").splitlines()
    digests = [found[1] for line in lines if (found := re.match(r"([0-9a-f]{64}) [ *]", line))]
    if len(digests) != 1:
        raise WeightsError(f"{record} should hold one line of sha256sum and does not; remove it")
    return _Record(record, digests[0], next((line for line in lines if line.startswith("#")), None))


def _write_record(path: Path, digest: str) -> None:
    try:
        weights_dir().mkdir(parents=True, exist_ok=True)
        write_atomically(_record_path(path), f"{_seen(path)}\n{digest}  {path.name}\n".encode())
    except OSError as error:  # a folder for reading only is a good place for weights
        log.info("%s: what it is cannot be recorded beside it (%s)", path, error.strerror)
