"""Students in files: the published unic.pth and unic_l.pth, backbones in DINOv2's format, and our own."""

from pathlib import Path

from unic.checkpoints.saved import SavedStudent


def read_published(path: Path) -> SavedStudent:
    """Placeholder."""
    raise NotImplementedError
