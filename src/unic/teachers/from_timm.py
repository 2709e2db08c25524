"""timm:<model>: any model of timm, with the pretrained weights timm finds on the hub."""

from typing import Any

import timm
import torch
from timm.models.vision_transformer import VisionTransformer

from unic.core.errors import first_line
from unic.models.encoder import ImageEncoder
from unic.models.positions import Positions, Resampling, positions_of
from unic.models.timm_encoder import TimmEncoder, create_timm
from unic.teachers.hf_download import hub_file


def load(name: str, options: dict) -> ImageEncoder:
    size = options.get("image_size")
    if not options.get("pretrained", True):
        return encoder_of(create_timm(name, image_size=size), name, options)
    file = _cached(name)
    resampled = size is not None and _has_positions(name, size)
    try:
        model: Any = create_timm(name, image_size=None if resampled else size, pretrained=True, **file)
    except OSError as error:  # the hub client's errors for a missing network or file are OSErrors
        raise FileNotFoundError(
            f"timm:{name}: the pretrained weights are neither in the hub's cache nor can they be downloaded "
            f"({first_line(error)}); use file:<path>?model={name} with a file you have"
        ) from error
    native = positions_of(model.state_dict(), Resampling())
    if resampled:
        model.set_input_size((size, size))  # as timm does while it loads weights into a model of that size
    return encoder_of(model, name, options, native)


def _has_positions(name: str, size: int) -> bool:
    """Whether the model is a ViT whose position embedding depends on the image size."""
    with torch.device("meta"):
        model = create_timm(name, image_size=size)
    return isinstance(model, VisionTransformer) and model.pos_embed is not None


def _cached(name: str) -> dict:
    """Where timm finds the weights without asking the hub, which it does for half a minute when there is no network."""
    facts = (
        timm.get_pretrained_cfg(name, allow_unregistered=False) if timm.is_model_pretrained(name) else None
    )
    if facts is None or not facts.hf_hub_id:
        return {}
    path = hub_file(facts.hf_hub_id, facts.hf_hub_filename or "model.safetensors", reference=f"timm:{name}")
    return {"pretrained_cfg_overlay": {"file": str(path)}} if path else {}


def outline(name: str, options: dict) -> ImageEncoder:
    return encoder_of(create_timm(name, image_size=options.get("image_size")), name, options)


def encoder_of(model: Any, name: str, options: dict, positions: Positions | None = None) -> TimmEncoder:
    """Preprocessing as timm notes it beside the pretrained weights; options of the reference go first."""
    facts = model.pretrained_cfg
    choices = {key: options[key] for key in ("image_size", "layer", "cls") if key in options}
    defaults = {"mean": facts["mean"], "std": facts["std"], "image_size": facts["input_size"][-1]}
    return TimmEncoder(model, name=name, positions=positions, **{**defaults, **choices})
