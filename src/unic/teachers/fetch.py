"""Stub until the helper's file arrives."""

from dataclasses import dataclass
from pathlib import Path
from unic.cache import cache_dir


@dataclass(frozen=True, kw_only=True)
class WeightsFile:
    name: str
    url: str
    sha256: str | None = None
    size: int | None = None

    def here(self) -> Path | None:
        path = cache_dir() / "weights" / self.name
        return path if path.exists() else None

    def __call__(self) -> Path:
        path = self.here()
        if path is None:
            raise FileNotFoundError(self.name)
        return path
