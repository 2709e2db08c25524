"""The names of classes as words, and the sentences in which zero-shot classification asks for them."""

import re
from collections.abc import Callable, Sequence
from pathlib import Path

from unic.core.errors import ConfigError, DataError
from unic.core.files import file_sha256
from unic.data.datasets import DATASETS

# What folders are called when not by words: ImageNet's WordNet ids, and numbers.
_WORDNET_ID = re.compile(r"n\d{8}")
_NO_WORDS = re.compile(rf"{_WORDNET_ID.pattern}|[\d\s_.]*")


def templates() -> Sequence[Callable[[str], str]]:
    """The 80 sentences about a class that CLIP was published with ("a bad photo of a {}.")."""
    _require_open_clip()
    from open_clip import OPENAI_IMAGENET_TEMPLATES

    return OPENAI_IMAGENET_TEMPLATES


def class_names(dataset: str, classes: Sequence[str], file: Path | None) -> tuple[tuple[str, ...], str]:
    """The name of each class that is scored, and what the protocol says of their origin.

    ImageNet-1K, and the sets its classifier is judged on, have the names CLIP was published with ("", they are
    the protocol's own). Other sets have the names of their classes, as words. Two classes may share a name: a
    network cannot tell these apart.
    classes: of the data set, in its order.
    file: one name a line in the order of the classes (those of ImageNet-1K where it is scored), instead.
    Raises ConfigError for classes whose names are no words, DataError or FileNotFoundError for a bad file.
    """
    is_imagenet = dataset == "in1k" or DATASETS[dataset].train_set == "in1k"
    published = _imagenet_names() if is_imagenet else ()
    if file is not None:
        names = _read_names(file, published or classes, "in1k" if is_imagenet else dataset)
        return names, f"names={file_sha256(file.expanduser())[:12]}"
    if is_imagenet:
        return published, ""
    strange = [name for name in classes if _NO_WORDS.fullmatch(name)]
    if strange:
        known = any(map(_WORDNET_ID.fullmatch, strange))
        raise ConfigError(
            f"{dataset}: {len(strange)} of its {len(classes)} classes have no words for names, the first: "
            f"{', '.join(strange[:3])}; zero-shot asks for classes by name: write one a line, in the order of the "
            f"classes ({', '.join(classes[:2])}, ...), into a file for --zero-shot.names"
            f"{', or read ImageNet-1K as --dataset in1k' if known else ''}"
        )
    return tuple(map(_as_words, classes)), "names=classes"


def _as_words(name: str) -> str:
    """As a person would write it: apartment_building, /a/abbey (SUN397) and SeaLake (EuroSAT) are made words."""
    name = re.sub(r"^/\w/", "", name)
    name = re.sub(r"(?<=[a-z])(?=[A-Z])", " ", name)
    return " ".join(re.sub(r"[_/]", " ", name).split())


def _read_names(file: Path, classes: Sequence[str], dataset: str) -> tuple[str, ...]:
    path = file.expanduser()
    if not path.is_file():
        raise FileNotFoundError(f"--zero-shot.names {file}: no such file; wanted one name a line")
    try:
        names = [line.strip() for line in path.read_text(encoding="utf-8-sig").splitlines()]
    except UnicodeDecodeError as error:
        raise DataError(f"{file}: not a text file in UTF-8 ({error})") from error
    if len(names) != len(classes):
        raise DataError(
            f"{file}: {len(names)} lines for the {len(classes)} classes of {dataset}; wanted one name a line, in the "
            f"order of the classes ({', '.join(classes[:2])}, ...)"
        )
    if "" in names:
        raise DataError(f"{file}: line {names.index('') + 1} is empty; wanted the name of a class")
    return tuple(names)


def _imagenet_names() -> tuple[str, ...]:
    """In the order of the sorted WordNet ids; 998 of the 1,000 differ."""
    _require_open_clip()
    from open_clip import IMAGENET_CLASSNAMES

    return tuple(IMAGENET_CLASSNAMES)


def _require_open_clip() -> None:
    try:
        import open_clip  # noqa: F401
    except ImportError as error:
        raise ImportError("zero-shot needs open_clip: pip install 'unic[clip]'") from error
