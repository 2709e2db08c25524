"""Pictures in a folder, and pictures.json, which says what each one shows."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from unic.core.dataclass_json import read_json
from unic.core.errors import ConfigError
from unic.core.files import write_atomically, write_json

INDEX = "pictures.json"


@dataclass(frozen=True, kw_only=True)
class SavedPicture:
    """kind: pca, similarity or attention. title, caption: for people. content: a PNG."""

    kind: str
    title: str
    caption: str
    content: bytes


def check_album(folder: Path) -> None:
    """Creates the folder; raises ConfigError where no pictures can be written, before any are made."""
    if folder.exists() and not folder.is_dir():
        raise ConfigError(f"{folder} is a file; --out must be a folder")
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ConfigError(f"{folder} cannot be created ({error.strerror}); give another --out") from error
    _entries(folder)


def write_album(folder: Path, pictures: Sequence[SavedPicture]) -> list[Path]:
    """Writes <kind>_<n>.png and the list of them. Pictures of these kinds from before are replaced, others stay."""
    kinds = {picture.kind for picture in pictures}
    before = _entries(folder)
    kept = [entry for entry in before if entry["kind"] not in kinds]
    made, paths = [], []
    for picture in pictures:
        number = sum(entry["kind"] == picture.kind for entry in made)
        facts = {key: value for key, value in asdict(picture).items() if key != "content"}
        made.append({"file": f"{picture.kind}_{number}.png", **facts})
        paths.append(folder / made[-1]["file"])
        write_atomically(paths[-1], picture.content)
    write_json(folder / INDEX, [*kept, *made])
    named = {entry["file"] for entry in (*kept, *made)}
    for entry in before:
        if entry["file"] not in named:
            (folder / Path(entry["file"]).name).unlink(missing_ok=True)
    return paths


def _entries(folder: Path) -> list[dict[str, Any]]:
    """What pictures.json says so far."""
    path = folder / INDEX
    if not path.exists():
        return []
    entries = read_json(path)
    if not isinstance(entries, list) or not all(
        isinstance(entry, dict) and isinstance(entry.get("file"), str) and isinstance(entry.get("kind"), str)
        for entry in entries
    ):
        raise ConfigError(f"{path} is not a list of pictures by unic; give another --out")
    return entries
