"""Frozen encoders to learn from, by name or by URI. A family of teachers, or a kind of URI, is one file beside this.

Names and kinds of URI: `unic teachers list`. Either may carry options after `?`, such as ?image_size=336&layer=-2.
"""

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl

import torch
from torch import Tensor, nn

from unic.core.errors import ConfigError
from unic.core.plugins import Registry, unknown
from unic.core.rng import seeded_torch
from unic.models.encoder import IMAGENET_MEAN, IMAGENET_STD, ImageEncoder
from unic.models.positions import Resampling, fit_positions, positions_of
from unic.models.student import ENCODER_FILE
from unic.models.timm_encoder import ClsRule, TimmEncoder, create_timm, without_classifier
from unic.models.weights import load_strictly, read_weights
from unic.teachers.fetch import WeightsFile


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
    convert: Callable[[dict[str, Tensor]], dict[str, Tensor]] = lambda state: state
    """From the file's keys to the model's."""
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

    load: Callable[[str, dict], ImageEncoder]
    options: frozenset[str]
    example: str
    what: str
    """One line for people."""
    outline: Callable[[str, dict], ImageEncoder] | None = None
    """The same encoder without its weights, where that needs no file and no network."""


TEACHERS: Registry[TeacherSpec] = Registry("teacher", "unic.teachers")
SCHEMES: Registry[Scheme] = Registry("kind of teacher", "unic.teachers")

_OPTIONS: dict[str, Callable[[str], object]] = {
    "image_size": int,
    "layer": int,
    "cls": str,
    "model": str,
    "name": str,
    "pretrained": int,
    "trust": int,
}


def load_teacher(reference: str) -> ImageEncoder:
    """A frozen encoder in eval mode. reference: a name of TEACHERS or a URI, with options after `?`.

    Published weights that are not on this machine are fetched.
    """
    scheme, rest, options = _resolve(reference)
    with seeded_torch(0, "untrained teacher"):  # timm initialises every model, also one that is overwritten
        encoder = _frozen(scheme.load(rest, options), reference)
    encoder.spaces = {reference: lambda: encoder}
    return encoder


def outline_teacher(reference: str) -> ImageEncoder | None:
    """The teacher on the meta device, for counting: shapes without weights. None where only its files can tell."""
    scheme, rest, options = _resolve(reference)
    if scheme.outline is None:
        return None
    with torch.device("meta"):
        return _frozen(scheme.outline(rest, options), reference)


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


def _safe(name: str) -> str:
    return re.sub(r"[^A-Za-z0-9_-]+", "_", name)


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


def _resolve(reference: str) -> tuple[Scheme, str, dict]:
    base, options = parse_reference(reference)
    name, colon, rest = base.partition(":")
    if colon and name not in SCHEMES:
        raise ConfigError(unknown("kind of teacher", f"{name}:", [f"{known}:" for known in SCHEMES]))
    scheme = SCHEMES[name] if colon else _BY_NAME
    options.pop("name", None)  # for short_name
    for key in options:
        if key not in scheme.options:
            raise ConfigError(f"{base}: {unknown('option', key, scheme.options)}")
    return scheme, rest if colon else base, options


def _frozen(encoder: ImageEncoder, reference: str) -> ImageEncoder:
    encoder.name = short_name(reference)
    return encoder.eval().requires_grad_(False)


def _load_published(name: str, options: dict) -> ImageEncoder:
    spec = TEACHERS[name]
    path = spec.weights()
    model = _architecture(spec, options)
    state = without_classifier(spec.convert(read_weights(path)), model)
    load_strictly(model, fit_positions(state, model, spec.positions), str(path))
    encoder = _encoder(spec, model, options)
    encoder.positions = positions_of(state, spec.positions)
    return encoder


def _outline_published(name: str, options: dict) -> ImageEncoder:
    return _encoder(TEACHERS[name], _architecture(TEACHERS[name], options), options)


def _architecture(spec: TeacherSpec, options: dict) -> nn.Module:
    return create_timm(spec.model, image_size=options.get("image_size", spec.image_size), **spec.options)


def _encoder(spec: TeacherSpec, model: nn.Module, options: dict) -> TimmEncoder:
    facts = {"image_size": spec.image_size, "mean": spec.mean, "std": spec.std, "cls": spec.cls}
    return TimmEncoder(model, name=spec.name, **{**facts, **options})


_BY_NAME = Scheme(
    load=_load_published,
    outline=_outline_published,
    options=frozenset({"image_size", "layer", "cls"}),
    example="dinov2_vitb14_reg",
    what="published weights by name",
)
