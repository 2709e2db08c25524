"""Checks every shape and type written in a signature, and keeps the user's cache out, for the whole test run."""

from pathlib import Path

import pytest
from jaxtyping import install_import_hook

install_import_hook("unic", "beartype.beartype")


@pytest.fixture(autouse=True)
def private_cache(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> Path:
    cache = tmp_path_factory.mktemp("cache")
    monkeypatch.setenv("UNIC_CACHE", str(cache))
    return cache
