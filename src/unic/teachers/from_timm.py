"""timm:<model>: any model of timm, with the pretrained weights timm finds on the hub."""

from typing import Any

from unic.models.encoder import ImageEncoder
from unic.models.timm_encoder import TimmEncoder, create_timm
from unic.teachers import SCHEMES, Scheme


def load(name: str, options: dict) -> ImageEncoder:
    pretrained = bool(options.get("pretrained", True))
    try:
        model = create_timm(name, image_size=options.get("image_size"), pretrained=pretrained)
    except OSError as error:  # the hub client's errors for a missing network or file are OSErrors
        raise FileNotFoundError(
            f"timm:{name}: the pretrained weights are neither in the hub's cache nor can they be downloaded "
            f"({str(error).splitlines()[0]}); use file:<path>?model={name} with a file you have"
        ) from error
    return encoder_of(model, name, options)


def outline(name: str, options: dict) -> ImageEncoder:
    return encoder_of(create_timm(name, image_size=options.get("image_size")), name, options)


def encoder_of(model: Any, name: str, options: dict) -> TimmEncoder:
    """Preprocessing as timm notes it beside the pretrained weights; options of the reference go first."""
    facts = model.pretrained_cfg
    choices = {key: options[key] for key in ("image_size", "layer", "cls") if key in options}
    defaults = {"mean": facts["mean"], "std": facts["std"], "image_size": facts["input_size"][-1]}
    return TimmEncoder(model, name=name, **{**defaults, **choices})


SCHEMES.add(
    "timm",
    Scheme(
        load=load,
        outline=outline,
        options=frozenset({"image_size", "layer", "cls", "pretrained"}),
        example="timm:vit_small_patch16_224.dino",
        what="any timm model: ViTs with or without class token, registers, CNNs",
    ),
)
