"""Where unic keeps what it can make or fetch again."""

import os
from pathlib import Path


def cache_dir() -> Path:
    """$UNIC_CACHE, or ~/.cache/unic."""
    return Path(os.environ.get("UNIC_CACHE") or Path.home() / ".cache" / "unic")
