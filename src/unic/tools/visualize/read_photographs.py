"""The pictures that encoders are shown: files, some of a folder, or two that come with scikit-learn."""

import logging
from collections.abc import Sequence
from pathlib import Path

from PIL import Image

from unic.core.errors import ConfigError
from unic.data.decode import SAMPLE_NAMES, read_image, sample_photographs
from unic.data.folders import read_paths
from unic.tools.doctor.sample_images import spread

log = logging.getLogger(__name__)


def read_photographs(sources: Sequence[Path], most: int) -> dict[str, Image.Image]:
    """At most `most` pictures by name, at equal distances in the order given; the samples where there are no sources.

    sources: image files, and folders whose images are taken with those below. Raises BadImage and DataError.
    """
    if most < 1:
        raise ConfigError(f"max_images must be at least 1, got {most}")
    if not sources:
        return dict(list(zip(SAMPLE_NAMES, sample_photographs(), strict=True))[:most])
    paths = [
        Path(path) for source in sources for path in (read_paths(source) if source.is_dir() else [source])
    ]
    chosen = [paths[number] for number in spread(len(paths), most)]
    if len(chosen) < len(paths):
        log.info("%d of %d images are shown; --max-images for more", len(chosen), len(paths))
    names = _names(chosen)
    return {name: read_image(path) for name, path in zip(names, chosen, strict=True)}


def _names(paths: Sequence[Path]) -> list[str]:
    """As many of the last parts of the paths as tell them apart; a number where one file comes twice."""
    for count in range(1, max(len(path.parts) for path in paths) + 1):
        names = ["/".join(path.parts[-count:]) for path in paths]
        if len(set(names)) == len(paths):
            return names
    return [f"{number}: {path.name}" for number, path in enumerate(paths, start=1)]
