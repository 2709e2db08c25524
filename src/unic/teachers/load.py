"""From a reference to an encoder: `load_teacher` with its weights, `outline_teacher` without."""

from typing import Any

import torch
from torch import nn

from unic.core.errors import ConfigError
from unic.core.keyed_random import seeded_torch
from unic.core.registry import unknown
from unic.models.encoder import ImageEncoder
from unic.models.positions import fit_positions, positions_of
from unic.models.timm_encoder import TimmEncoder, create_timm, without_classifier
from unic.models.weights import load_strictly, read_weights
from unic.teachers import SCHEMES, TEACHERS, Scheme, TeacherSpec, parse_reference, short_name


def load_teacher(reference: str) -> ImageEncoder:
    """A frozen encoder in eval mode. reference: a name of TEACHERS or a URI, with options after `?`.

    Published weights that are not on this machine are fetched.
    """
    scheme, rest, options = _resolve(reference)
    with seeded_torch(0, "untrained teacher"):  # timm initialises every model, also one that is overwritten
        encoder = _frozen(scheme.load(rest, options), reference)
    return encoder.replace(spaces={reference: lambda encoder: encoder})


def outline_teacher(reference: str) -> ImageEncoder | None:
    """The teacher on the meta device, for counting: shapes without weights. None where only its files can tell."""
    scheme, rest, options = _resolve(reference)
    if scheme.outline is None:
        return None
    with torch.device("meta"):
        return _frozen(scheme.outline(rest, options), reference)


def load_published(name: str, options: dict) -> TimmEncoder:
    """One of TEACHERS, strictly, on the positions of its file. options: image_size, layer, cls."""
    spec = TEACHERS[name]
    path = spec.weights()
    model = _architecture(spec, options)
    state = without_classifier(spec.convert(read_weights(path)), model)
    load_strictly(model, fit_positions(state, model, spec.positions), str(path))
    return _encoder(spec, model, options, positions=positions_of(state, spec.positions))


def _outline_published(name: str, options: dict) -> TimmEncoder:
    return _encoder(TEACHERS[name], _architecture(TEACHERS[name], options), options)


def _architecture(spec: TeacherSpec, options: dict) -> nn.Module:
    return create_timm(spec.model, image_size=options.get("image_size", spec.image_size), **spec.options)


def _encoder(spec: TeacherSpec, model: nn.Module, options: dict, **more: Any) -> TimmEncoder:
    facts = {"image_size": spec.image_size, "mean": spec.mean, "std": spec.std, "cls": spec.cls}
    return TimmEncoder(model, name=spec.name, **{**facts, **options}, **more)


_BY_NAME = Scheme(
    load=load_published,
    outline=_outline_published,
    options=frozenset({"image_size", "layer", "cls"}),
    example="dinov2_vitb14_reg",
    what="published weights by name",
)


def _resolve(reference: str) -> tuple[Scheme, str, dict]:
    """The scheme of a reference, what follows it, and the options, all of which the scheme knows."""
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
    return encoder.replace(name=short_name(reference)).eval().requires_grad_(False)
