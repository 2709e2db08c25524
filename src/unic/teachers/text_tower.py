"""The text tower of a CLIP-type teacher, and the projection that brings the teacher's CLS into the space of texts.

Letters: n texts, B images, D width of CLS, E width of the common space.
"""

from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from unic.core.errors import ConfigError
from unic.core.keyed_random import seeded_torch
from unic.models.weights import hash_module
from unic.teachers import TEACHERS, parse_reference
from unic.teachers.from_open_clip import architecture, architecture_config, create_open_clip
from unic.teachers.hf_download import hub_file

_TEXTS_AT_ONCE = 256


class TextTower(nn.Module):
    """Texts, and the CLS of the image tower they were trained with, as points of one space; cosines compare them."""

    logit_scale: float
    """What the cosines are multiplied by before the softmax (about 100 after training)."""

    def __init__(self, model: Any, tokenizer: Any):
        super().__init__()
        self.tokenizer = tokenizer
        self.image_head = _image_head(model.visual)
        self.logit_scale = float(model.logit_scale.detach().exp())
        model.visual = nn.Identity()  # only its last layer is needed here
        self.model = model
        self.eval().requires_grad_(False)

    @torch.no_grad()
    def encode(self, texts: Sequence[str]) -> Float[Tensor, "n E"]:
        """L2-normalised, on the device of the weights. Texts are cut at the tokenizer's context length."""
        device = next(self.model.parameters()).device
        found = [
            self.model.encode_text(
                self.tokenizer(list(texts[start : start + _TEXTS_AT_ONCE])).to(device), normalize=True
            )
            for start in range(0, len(texts), _TEXTS_AT_ONCE)
        ]
        return torch.cat(found)

    def project(self, cls: Float[Tensor, "B D"]) -> Float[Tensor, "B E"]:
        """The teacher's CLS in the space of texts, L2-normalised."""
        return F.normalize(self.image_head(cls), dim=-1)

    def content_hash(self) -> str:
        """sha256 of what decides `encode`: the text tower's layers, their weights, and the tokenizer's length."""
        context_length = getattr(self.tokenizer, "context_length", None)
        return hash_module(self.model, repr(self.model), type(self.tokenizer).__name__, context_length)

    @property
    def projection(self) -> Float[Tensor, "D E"] | None:
        """The matrix of `project`; None where CLS is in the common space already, or where it takes more than one."""
        layers = [
            layer for layer in self.image_head.modules() if next(layer.parameters(False), None) is not None
        ]
        if len(layers) != 1 or not isinstance(layers[0], nn.Linear) or layers[0].bias is not None:
            return None
        return layers[0].weight.T


def has_texts(reference: str) -> bool:
    """Whether a teacher has a text tower that `load_text_tower` knows how to find; no file is looked for."""
    base, _ = parse_reference(reference)
    return base.startswith("open_clip:") or (base in TEACHERS and TEACHERS[base].text_tower is not None)


def load_text_tower(reference: str) -> TextTower:
    """The text tower of a teacher: one of TEACHERS that has it, or open_clip:<architecture>/<tag>.

    Options of the image tower (image_size, layer) are accepted and change nothing.
    """
    base, options = parse_reference(reference)
    scheme, colon, text = base.partition(":")
    if colon and scheme != "open_clip":
        raise ConfigError(
            f"{base}: only open_clip:<architecture>/<tag> and teachers of the CLIP type have texts"
        )
    # The purpose is load_teacher's, so that towers with random weights (?pretrained=0) belong together.
    with seeded_torch(0, "untrained teacher"):
        if colon:
            arch = text.partition("/")[0]
            towers, _ = create_open_clip(text, pretrained=bool(options.get("pretrained", True)))
        else:
            arch = TEACHERS[base].text_tower
            if arch is None:
                known = [name for name in TEACHERS if TEACHERS[name].text_tower] or ["open_clip:<...>"]
                raise ConfigError(f"{base} has no text tower; teachers that have one: {', '.join(known)}")
            towers = architecture(arch, path=TEACHERS[base].weights())
    return TextTower(towers.model, _tokenizer(arch))


def _tokenizer(arch: str) -> Any:
    import open_clip

    repo = architecture_config(arch)["text_cfg"].get("hf_tokenizer_name")
    if repo:
        hub_file(repo, "tokenizer_config.json", reference=f"the tokenizer of open_clip:{arch}")
    return open_clip.get_tokenizer(arch)


def _image_head(visual: Any) -> nn.Module:
    """From the CLS that the encoder reads to the common space."""
    if hasattr(visual, "trunk"):
        return nn.Sequential(visual.trunk.get_classifier(), visual.head)
    matrix = getattr(visual, "proj", None)
    if matrix is None:  # the attention pool of a ResNet projects by itself
        return nn.Identity()
    linear = nn.Linear(*matrix.shape, bias=False)
    linear.weight.data = matrix.detach().T.contiguous()
    return linear
