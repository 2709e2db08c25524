"""Pictures of what encoders see: patches in colour, patches like one patch, and where the class token looks."""

import logging
from collections.abc import Iterable, Mapping
from pathlib import Path

import torch
from PIL import Image

from unic.core.errors import ConfigError
from unic.tools.visualize.extract import NamedEncoder, extract_maps
from unic.tools.visualize.options import VisualizeOptions, read_patch
from unic.tools.visualize.output import SavedPicture, check_album, write_album
from unic.tools.visualize.picture_tables import (
    PictureTable,
    attending,
    attention_tables,
    pca_table,
    similarity_table,
)

log = logging.getLogger(__name__)


def visualize(
    shown: Iterable[NamedEncoder],
    pictures: Mapping[str, Image.Image],
    choices: VisualizeOptions,
    out: Path,
    *,
    device: torch.device,
) -> list[Path]:
    """Draws a table for each kind, a row for each picture and a column for each encoder; gives the files.

    shown: taken one at a time, so that large encoders need not fit into memory together.
    pictures: by name; the square at the centre of each is looked at.
    Raises ConfigError for attention that is asked for and that no encoder has.
    """
    check_album(out)
    attention = not choices.kinds or "attention" in choices.kinds
    seen = []
    for one in shown:
        images, size = list(pictures.values()), choices.image_size
        seen.append(extract_maps(one, images, image_size=size, attention=attention, device=device))
        log.info("%s: %s", one.name, seen[-1].size)
    if not seen:
        raise ConfigError("no encoder named; name a teacher, a URI or a run folder")
    table = PictureTable(pictures, seen)
    with_attention = choices.heads or attending(seen)
    kinds = choices.kinds or ("pca", "similarity", *(["attention"] if with_attention else []))
    drawn: list[SavedPicture] = []
    for kind in dict.fromkeys(kinds):
        if kind == "pca":
            drawn.append(pca_table(table, choices.basis, foreground=choices.foreground))
        elif kind == "similarity":
            drawn.append(similarity_table(table, read_patch(choices.patch)))
        else:
            drawn += attention_tables(table, heads=choices.heads)
    return write_album(out, drawn)
