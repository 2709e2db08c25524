"""Frozen encoders to learn from, by name or by URI: which there are, and what a reference means. No torch here.

A family of published teachers is one file in families/, a kind of URI one entry in uri_schemes.py. Either may carry
options after `?`, such as ?image_size=336&layer=-2. `unic teachers list` shows all of them; load.py makes encoders of
them.
"""

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qsl

from unic.core.errors import ConfigError
from unic.core.registry import Registry, unknown
from unic.models.config import ENCODER_FILE, IMAGENET_MEAN, IMAGENET_STD, ClsRule, Resampling
from unic.teachers.fetch import WeightsFile

if TYPE_CHECKING:
    from torch import Tensor

    from unic.models.encoder import ImageEncoder


@dataclass(frozen=True, kw_only=True)
class TeacherSpec:
    """Facts about published weights, and how they become a timm model."""

    name: str
    model: str
    """timm's name of the architecture."""
    options: Mapping[str, Any] = field(default_factory=dict)
    """For timm.create_model, where the published model differs from timm's default."""
    weights: Callable[[], Path]
    """Finds the file on this machine, or says in an error what to do. A WeightsFile fetches it."""
    convert: "Callable[[dict[str, Tensor]], dict[str, Tensor]]" = lambda state: state
    """From the file's keys to the model's."""
    parameters: int | None = None
    """How many parameters the encoder has, without classifier, at `image_size`. None: `unic teachers list` builds the
    architecture to count them, which takes torch; a family of this package gives them."""
    image_size: int = 224
    mean: tuple[float, float, float] = IMAGENET_MEAN
    std: tuple[float, float, float] = IMAGENET_STD
    cls: ClsRule = "auto"
    positions: Resampling = field(default_factory=Resampling)
    """How the family brings its position embedding to another image size."""
    text_tower: str | None = None
    """open_clip's architecture whose text tower is in the same file, for models of the CLIP type."""
    licence: str
    source: str


@dataclass(frozen=True, kw_only=True)
class Scheme:
    """One kind of URI: how `<scheme>:<rest>` with options becomes an encoder."""

    load: "Callable[[str, dict], ImageEncoder]"
    options: frozenset[str]
    example: str
    what: str
    """One line for people."""
    outline: "Callable[[str, dict], ImageEncoder] | None" = None
    """The same encoder without its weights, where that needs no file and no network."""


TEACHERS: Registry[TeacherSpec] = Registry(
    "teacher", "unic.teachers.families", list_command="unic teachers list"
)
SCHEMES: Registry[Scheme] = Registry(
    "kind of teacher", "unic.teachers.uri_schemes", list_command="unic teachers list"
)

_OPTIONS: dict[str, Callable[[str], object]] = {
    "image_size": int,
    "layer": int,
    "cls": str,
    "model": str,
    "name": str,
    "pretrained": int,
    "trust": int,
}


def missing_weights(reference: str) -> WeightsFile | None:
    """The file that has to be fetched before this teacher can be loaded; None for all but published teachers."""
    base, _ = parse_reference(reference)
    weights = None if ":" in base else TEACHERS[base].weights
    return weights if isinstance(weights, WeightsFile) and weights.here() is None else None


def licence(reference: str) -> str | None:
    """The licence of a teacher's weights, where unic knows it."""
    base, _ = parse_reference(reference)
    return TEACHERS[base].licence if base in TEACHERS else None


def short_name(reference: str) -> str:
    """The name of a teacher in metrics and parameter names: the reference without options, in safe letters."""
    base, options = parse_reference(reference)
    if "name" in options:
        return _safe(options["name"])
    scheme, colon, rest = base.partition(":")
    if colon and scheme in SCHEMES:
        base = rest
    if scheme == "file":
        path = Path(base)
        base = path.parent.name if path.name == ENCODER_FILE else path.stem
    return _safe(base)


def parse_reference(reference: str) -> tuple[str, dict]:
    """ "name?image_size=64" -> ("name", {"image_size": 64})."""
    base, _, query = reference.partition("?")
    options = {}
    for key, text in parse_qsl(query, keep_blank_values=True):
        if key not in _OPTIONS:
            raise ConfigError(f"{reference}: {unknown('option', key, _OPTIONS)}")
        try:
            options[key] = _OPTIONS[key](text)
        except ValueError as error:
            raise ConfigError(f"{reference}: {key} must be a whole number, got {text!r}") from error
    if options.get("cls", "auto") not in ("auto", "token", "pooled"):
        raise ConfigError(f"{reference}: cls must be auto, token or pooled, got {options['cls']!r}")
    if options.get("image_size", 1) < 1:
        raise ConfigError(f"{reference}: image_size must be a positive number of pixels")
    return base, options


def _safe(name: str) -> str:
    return re.sub(r"[^A-Za-z0-9_-]+", "_", name)
