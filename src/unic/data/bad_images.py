"""The unreadable images of a run: counted, named once, written down."""

import json
import logging
from pathlib import Path

from unic.core.errors import DataError
from unic.core.files import read_lines, write_atomically
from unic.data.decode import BadImage

log = logging.getLogger(__name__)


class BadImages:
    """The unreadable images met so far; each is logged once, and written once as a JSON line.

    file: where the lines go ({"path", "reason"}); those of an earlier start are not repeated.
    """

    def __init__(self, file: Path | None = None):
        self.reasons: dict[str, str] = {}
        self._file = file
        self._written = _paths_in(file) if file and file.exists() else set()

    def __len__(self) -> int:
        return len(self.reasons)

    def add(self, bad: BadImage) -> None:
        if bad.path in self.reasons:
            return
        self.reasons[bad.path] = bad.reason
        log.warning("unreadable image, another takes its place: %s", bad)
        if self._file and bad.path not in self._written:
            with self._file.open("a") as lines:
                lines.write(json.dumps({"path": bad.path, "reason": bad.reason}) + "\n")

    def too_many(self, num_images: int, max_bad: float) -> bool:
        return len(self) > max_bad * num_images

    def error(self, num_images: int, max_bad: float) -> DataError:
        """What to raise when there are too many: how many, of how many, allowed, and the first three."""
        first = "; ".join(f"{path}: {reason}" for path, reason in list(self.reasons.items())[:3])
        return DataError(
            f"{len(self)} of {num_images} images cannot be read ({len(self) / num_images:.2%}; max_bad "
            f"allows {max_bad:.2%}); repair or remove them, or raise max_bad. First: {first}"
        )


def _paths_in(file: Path) -> set[str]:
    content = file.read_text()
    whole = content[: content.rfind("\n") + 1]
    if whole != content:  # a kill cut the last line short, and the next one must not be joined to it
        write_atomically(file, whole.encode())
    return {record["path"] for record in read_lines(file)}
