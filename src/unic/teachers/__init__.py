"""Frozen encoders to learn from, by name or by URI. A family of teachers is one file beside this one.

Names: `unic teachers list`. URIs: timm:<model>, file:<path>?model=<timm model>. Either may carry options after `?`:
image_size (pixels), cls (token | pooled), stage (which feature map gives the patches).
"""

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl

from torch import Tensor, nn

from unic.errors import ConfigError
from unic.keyed import seeded_torch
from unic.models.encoder import IMAGENET_MEAN, IMAGENET_STD, ClsRule, TimmEncoder, create_timm
from unic.models.weights import load_strictly, read_weights
from unic.plugins import Registry, unknown


@dataclass(frozen=True, kw_only=True)
class TeacherSpec:
    """Facts about published weights, and how they become a timm model."""

    name: str
    model: str
    """timm's name of the architecture."""
    weights: Callable[[], Path]
    """Finds the file on this machine; says in an error what to do when it is not there."""
    convert: Callable[[dict[str, Tensor], nn.Module], dict[str, Tensor]] = lambda state, _: state
    """From the file's keys to the model's."""
    image_size: int = 224
    mean: tuple[float, float, float] = IMAGENET_MEAN
    std: tuple[float, float, float] = IMAGENET_STD
    cls: ClsRule = "auto"
    licence: str
    source: str


TEACHERS: Registry[TeacherSpec] = Registry("teacher", "unic.teachers")

_OPTIONS: dict[str, Callable[[str], object]] = {
    "image_size": int,
    "stage": int,
    "cls": str,
    "model": str,
    "pretrained": int,
}


def load_teacher(reference: str) -> TimmEncoder:
    """A frozen encoder in eval mode. reference: a name of TEACHERS or a URI, with options after `?`."""
    base, options = parse_reference(reference)
    scheme, colon, rest = base.partition(":")
    if colon and scheme not in SCHEMES:
        raise ConfigError(unknown("kind of teacher", f"{scheme}:", [f"{known}:" for known in SCHEMES]))
    with seeded_torch(0, "untrained teacher"):  # timm initialises every model, also one that is overwritten
        encoder = SCHEMES[scheme](rest, options) if colon else _from_spec(TEACHERS[base], options)
    encoder.name = short_name(reference)
    return encoder.eval().requires_grad_(False)


def short_name(reference: str) -> str:
    """The name of a teacher in metrics and parameter names: the reference without options, in safe letters."""
    base = reference.partition("?")[0].removeprefix("timm:")
    if base.startswith("file:"):
        base = Path(base).stem
    return re.sub(r"[^A-Za-z0-9_-]+", "_", base)


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


def _from_spec(spec: TeacherSpec, options: dict) -> TimmEncoder:
    _allow(options, {"image_size", "stage", "cls"}, spec.name)
    path = spec.weights()
    size = options.get("image_size", spec.image_size)
    model = create_timm(spec.model, image_size=size)
    load_strictly(model, _matching(spec.convert(read_weights(path), model), model), str(path))
    return TimmEncoder(
        model,
        name=spec.name,
        **{"mean": spec.mean, "std": spec.std, "cls": spec.cls, "image_size": size, **options},
    )


def _from_timm(name: str, options: dict) -> TimmEncoder:
    _allow(options, {"image_size", "stage", "cls", "pretrained"}, f"timm:{name}")
    pretrained = bool(options.pop("pretrained", True))
    try:
        model = create_timm(name, image_size=options.get("image_size"), pretrained=pretrained)
    except OSError as error:  # the hub client's errors for a missing network or file are OSErrors
        raise FileNotFoundError(
            f"timm:{name}: the pretrained weights are neither in the hub's cache nor can they be downloaded "
            f"({str(error).splitlines()[0]}); use file:<path>?model={name} with a file you have"
        ) from error
    return _encoder(model, name, options)


def _from_file(path: str, options: dict) -> TimmEncoder:
    _allow(options, {"image_size", "stage", "cls", "model"}, f"file:{path}")
    name = options.pop("model", None)
    if name is None:
        raise ConfigError(f"file:{path} needs the architecture: file:{path}?model=<timm model>")
    state = read_weights(Path(path).expanduser())
    model = create_timm(name, image_size=options.get("image_size"))
    load_strictly(model, _matching(state, model), path)
    return _encoder(model, name, options)


SCHEMES: dict[str, Callable[[str, dict], TimmEncoder]] = {"timm": _from_timm, "file": _from_file}


def _encoder(model: nn.Module, name: str, options: dict) -> TimmEncoder:
    facts = _facts(model)
    defaults = {"mean": facts["mean"], "std": facts["std"], "image_size": facts["input_size"][-1]}
    return TimmEncoder(model, name=name, **{**defaults, **options})


def _matching(state: Mapping[str, Tensor], model: nn.Module) -> dict[str, Tensor]:
    """Leaves out a classifier, which no encoder has: the keys of timm's classifier layer, where the model has none."""
    heads = _facts(model).get("classifier") or ()
    prefixes = tuple(f"{head}." for head in ([heads] if isinstance(heads, str) else heads))
    own = model.state_dict()
    return {key: tensor for key, tensor in state.items() if key in own or not key.startswith(prefixes)}


def _facts(model: Any) -> dict[str, Any]:
    """timm's notes on the pretrained weights: mean, std, input_size, classifier."""
    return model.pretrained_cfg


def _allow(options: dict, allowed: set[str], what: str) -> None:
    for key in options:
        if key not in allowed:
            raise ConfigError(f"{what}: {unknown('option', key, allowed)}")
