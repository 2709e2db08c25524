"""Any timm model as an Encoder: ViTs with or without class token, registers, CNNs.

Letters: B images, N patches, D width, h w grid.
"""

from collections.abc import Mapping, Sequence
from typing import Any, Literal

import timm
import torch
from jaxtyping import Float
from torch import Tensor, nn

from unic.errors import ConfigError
from unic.models.encoder import IMAGENET_MEAN, IMAGENET_STD, ImageEncoder
from unic.plugins import unknown
from unic.tokens import Pixels, Tokens

ClsRule = Literal["auto", "token", "pooled"]


class TimmEncoder(ImageEncoder):
    """Reads CLS and patch tokens from a timm model.

    cls: "token" is the class token after the final norm; "pooled" is what timm feeds its classifier (pooling,
      `fc_norm` or attention pooling included); "auto" is the token where timm classifies from it, else pooled.
    layer: which block of a ViT or stage of a CNN the tokens come from, through the final norm where the model has
      one; negative ones count from the end, None is the last. A pooled CLS is always that of the whole model.
    A CNN's patches are the cells of its feature map; a ViT's leave out class and register tokens.
    """

    def __init__(
        self,
        model: nn.Module,
        *,
        name: str,
        image_size: int,
        mean: Sequence[float] = IMAGENET_MEAN,
        std: Sequence[float] = IMAGENET_STD,
        cls: ClsRule = "auto",
        layer: int | None = None,
    ):
        super().__init__(model, name=name, image_size=image_size, mean=mean, std=std)
        self.layer = layer
        self.cls_rule = _cls_rule(model, cls, name)
        if _is_convolutional(model):
            # Depthwise convolutions on a CPU are four times faster in this layout (tf_efficientnet_lite0, 64 px).
            model.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        _check_image_size(model, image_size, name)
        self.measure()

    def tokens(self, pixels: Float[Tensor, "B 3 H W"]) -> Tokens:
        """Tokens after the final norm."""
        if self.cls_rule == "token" and self.layer is not None:
            return self.blocks(pixels, [self.layer], norm=True)[0]
        if self.layer is None:
            features = self.model.forward_features(pixels)
            patches = self._patches(features)
        else:
            features, (last,) = self.model.forward_intermediates(
                pixels, indices=[self.layer], norm=True, output_fmt="NCHW"
            )
            patches = last.flatten(2).transpose(1, 2)  # (B, D, h, w) -> (B, N, D)
        if self.cls_rule == "token":
            if features.shape[1] == 1:  # PiT keeps its patches to itself
                raise ConfigError(f"{self.name} gives a class token and no patch tokens; unic needs both")
            return Tokens(features[:, 0], patches)
        return Tokens(self.model.forward_head(features, pre_logits=True), patches)

    def block_outputs(self, images: Pixels) -> list[Tokens]:
        """Tokens after each block of a ViT, before the final norm: what the ladder reads (UNIC, Sec. 3.2)."""
        return self.blocks(self.prepare(images))

    def blocks(
        self, pixels: Float[Tensor, "B 3 H W"], indices: list[int] | None = None, *, norm: bool = False
    ) -> list[Tokens]:
        """Tokens after the named blocks of a ViT (None: all), from prepared pixels; norm: through the final norm."""
        outputs = self.model.forward_intermediates(
            pixels,
            indices=indices,
            norm=norm,
            return_prefix_tokens=True,
            output_fmt="NLC",
            intermediates_only=True,
        )
        return [Tokens(prefix[:, 0], patches) for patches, prefix in outputs]

    def reading(self) -> tuple:
        return (self.cls_rule, self.layer)

    def prepare(self, images: Pixels) -> Float[Tensor, "B 3 {self.image_size} {self.image_size}"]:
        pixels = super().prepare(images)
        return (
            pixels.contiguous(memory_format=torch.channels_last) if _is_convolutional(self.model) else pixels
        )

    def _patches(self, features: Tensor) -> Float[Tensor, "B N D"]:
        if features.ndim == 3:
            return features[:, getattr(self.model, "num_prefix_tokens", 0) :]
        if getattr(self.model, "output_fmt", "NCHW") == "NHWC":
            return features.flatten(1, 2)
        return features.flatten(2).transpose(1, 2)  # (B, D, h, w) -> (B, N, D)


def create_timm(
    name: str, *, image_size: int | None = None, pretrained: bool = False, **options: Any
) -> nn.Module:
    """timm's model without its classifier, built for `image_size` where the architecture depends on it.

    Raises ConfigError with the nearest names when timm does not know the model.
    """
    base = name.split(".")[0]
    if not timm.is_model(base):
        raise ConfigError(unknown("timm model", base, timm.list_models()))
    try:
        tagged = timm.get_pretrained_cfg(name, allow_unregistered=True)
        if image_size is not None and tagged is not None and tagged.fixed_input_size:
            options["img_size"] = image_size
        return timm.create_model(name, pretrained=pretrained, **{"num_classes": 0, **options})
    except (RuntimeError, ValueError) as error:
        raise ConfigError(f"timm:{name} cannot be built: {str(error).splitlines()[0]}") from error


def without_classifier(state: Mapping[str, Tensor], model: Any) -> dict[str, Tensor]:
    """Leaves out the weights of timm's classifier layer, which no encoder has, where `model` has none."""
    heads = model.pretrained_cfg.get("classifier") or ()
    prefixes = tuple(f"{head}." for head in ([heads] if isinstance(heads, str) else heads))
    own = model.state_dict()
    return {key: tensor for key, tensor in state.items() if key in own or not key.startswith(prefixes)}


def _cls_rule(model: Any, rule: ClsRule, name: str) -> Literal["token", "pooled"]:
    has_token = getattr(model, "cls_token", None) is not None
    if rule == "auto":
        return "token" if has_token and getattr(model, "global_pool", "token") == "token" else "pooled"
    if rule == "token" and not has_token:
        raise ConfigError(f"{name} has no class token; use cls=pooled")
    return rule


def _is_convolutional(model: nn.Module) -> bool:
    return not hasattr(model, "patch_embed") and any(isinstance(m, nn.Conv2d) for m in model.modules())


def _check_image_size(model: Any, size: int, name: str) -> None:
    patch = getattr(getattr(model, "patch_embed", None), "patch_size", None)
    p = patch[0] if isinstance(patch, tuple) else patch
    if isinstance(p, int) and size % p:
        raise ConfigError(
            f"{name}: image size {size} is not a multiple of the patch size {p}; "
            f"nearest: {max(size // p, 1) * p} or {(size // p + 1) * p}"
        )
