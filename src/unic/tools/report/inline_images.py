"""Pictures for a page that has to stay small: no larger than a screen shows, and only as many as there is room for."""

import base64
import io
from collections.abc import Sequence
from pathlib import Path

from PIL import Image, UnidentifiedImageError

from unic.tools.report.inputs import ReportPicture

MAX_SIDE = 1200
QUALITY = 85


def embed(pictures: Sequence[ReportPicture], room: int) -> dict[ReportPicture, str]:
    """Addresses that hold the picture themselves, but none for a picture that is unreadable or has no room left.

    room: in characters of the page, for all of them together.
    """
    addresses = {}
    for picture in pictures:
        address = data_address(picture.path)
        if address is None:
            continue
        # Its words may grow when they are escaped, and the title is there twice.
        size = len(address) + 300 + 6 * (2 * len(picture.title) + len(picture.caption))
        if size <= room:
            addresses[picture] = address
            room -= size
    return addresses


def data_address(path: Path) -> str | None:
    """The file itself where it is small, else scaled down and as WebP; None when it is no readable image."""
    try:
        content = path.read_bytes()
        with Image.open(io.BytesIO(content)) as image:
            kind = Image.MIME.get(image.format or "", "")
            if (
                max(image.size) <= MAX_SIDE
                and len(content) <= 100_000
                and kind in ("image/png", "image/jpeg")
            ):
                return f"data:{kind};base64,{base64.b64encode(content).decode()}"
            image = image.convert("RGBA" if image.has_transparency_data else "RGB")
            image.thumbnail((MAX_SIDE, MAX_SIDE), Image.Resampling.LANCZOS)
            smaller = io.BytesIO()
            image.save(smaller, "WEBP", quality=QUALITY)
    except (OSError, UnidentifiedImageError, ValueError, Image.DecompressionBombError):
        return None
    return f"data:image/webp;base64,{base64.b64encode(smaller.getvalue()).decode()}"
