"""Any timm model as an Encoder: ViTs with or without class token, registers, CNNs.

Letters: B images, N patches, D width, h w grid.
"""

import inspect
from collections.abc import Mapping, Sequence
from typing import Any, Literal

import timm
import torch
from jaxtyping import Float
from torch import Tensor, nn

from unic.core.errors import ConfigError, first_line
from unic.core.registry import unknown
from unic.method.types import Pixels, TokenMaps, Tokens
from unic.models.config import IMAGENET_MEAN, IMAGENET_STD, ClsRule, Resampling
from unic.models.encoder import ImageEncoder
from unic.models.positions import Positions, num_without_place, resample_positions


class TimmEncoder(ImageEncoder):
    """Reads CLS and patch tokens from a timm model.

    cls: "token" is the class token after the final norm; "pooled" is what timm feeds its classifier (pooling,
      `fc_norm` or attention pooling included); "auto" is the token where timm classifies from it, else pooled.
    layer: which block of a ViT or stage of a CNN the tokens come from, through the final norm where the model has
      one; negative ones count from the end, None is the last. A pooled CLS is always that of the whole model.
    positions: the position embedding on the grid it came with, and how the family resamples it; None: the model's own.
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
        positions: Positions | None = None,
    ):
        super().__init__(model, name=name, image_size=image_size, mean=mean, std=std)
        self.layer = layer
        self.positions = positions
        self.cls_rule = _cls_rule(model, cls, name)
        if _is_convolutional(model):
            # Depthwise convolutions on a CPU are four times faster in this layout (tf_efficientnet_lite0, 64 px).
            model.to(memory_format=torch.channels_last)
        _check_image_size(model, image_size, name)
        self.measure()

    def tokens(self, pixels: Float[Tensor, "B 3 H W"]) -> Tokens:
        """Tokens after the final norm."""
        if self.layer is None:
            features = self.model.forward_features(pixels)
            return self._tokens(features, self._patches(features))
        if self.cls_rule == "token":
            return self.blocks(pixels, [self.layer], norm=True)[0]
        features, (last,) = self.model.forward_intermediates(
            pixels, indices=[self.layer], norm=True, output_fmt="NCHW"
        )
        return self._tokens(features, last.flatten(2).transpose(1, 2))  # (B, D, h, w) -> (B, N, D)

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

    @property
    def stride(self) -> int:
        stages = getattr(self.model, "feature_info", None)
        if self._has_blocks or not stages:
            return self.patch_size
        return stages[-1 if self.layer is None else self.layer]["reduction"]

    def maps(
        self, pixels: Float[Tensor, "B 3 H W"], layers: Sequence[int] = (-1,), *, norm: bool = True
    ) -> list[TokenMaps]:
        """As `ImageEncoder.maps`, at any blocks of a ViT and stages of a CNN.

        CLS of an inner stage, or of an inner block of a ViT without class token, is the mean over its places.
        """
        if _is_convolutional(self.model):
            pixels = pixels.contiguous(memory_format=torch.channels_last)
        return super().maps(pixels, layers, norm=norm)

    def _last_map(self, pixels: Tensor) -> TokenMaps:
        if self._num_blocks is None:
            return super()._last_map(pixels)
        features = self.model.forward_features(pixels)
        tokens = self._tokens(features, self._patches(features))
        if features.ndim == 4:
            return TokenMaps(tokens.cls, self._as_map(features))
        return self._placed(tokens, pixels)

    def _inner_maps(self, pixels: Tensor, numbers: list[int], norm: bool) -> dict[int, TokenMaps]:
        if self.cls_rule == "token":
            found = [self._placed(tokens, pixels) for tokens in self.blocks(pixels, numbers, norm=norm)]
            return dict(zip(numbers, found, strict=True))
        features, stages = self.model.forward_intermediates(
            pixels, indices=numbers, norm=norm, output_fmt="NCHW"
        )
        maps = {
            number: TokenMaps(stage.mean((2, 3)), stage)
            for number, stage in zip(numbers, stages, strict=True)
        }
        last = (self._num_blocks or 0) - 1
        if norm and last in maps:  # as when it is read alone
            patches = self._as_map(features) if features.ndim == 4 else maps[last].patches
            maps[last] = TokenMaps(self.model.forward_head(features, pre_logits=True), patches)
        return maps

    def _tokens(self, features: Tensor, patches: Float[Tensor, "B N D"]) -> Tokens:
        """CLS by the rule, from what `forward_features` gives."""
        if self.cls_rule == "pooled":
            return Tokens(self.model.forward_head(features, pre_logits=True), patches)
        if features.shape[1] == 1:  # PiT keeps its patches to itself
            raise ConfigError(f"{self.name} gives a class token and no patch tokens; unic needs both")
        return Tokens(features[:, 0], patches)

    def _as_map(self, features: Tensor) -> Float[Tensor, "B D h w"]:
        return (
            features.permute(0, 3, 1, 2) if getattr(self.model, "output_fmt", "NCHW") == "NHWC" else features
        )

    @property
    def _has_blocks(self) -> bool:
        return hasattr(self.model, "num_prefix_tokens") and hasattr(self.model, "blocks")

    @property
    def _num_blocks(self) -> int | None:
        """Blocks or stages; None where timm hands out none, or (of XCiT and CaiT) not with their class token."""
        read = getattr(self.model, "forward_intermediates", None)
        if self.layer is not None or read is None:
            return None
        if self.cls_rule == "token" and "return_prefix_tokens" not in inspect.signature(read).parameters:
            return None
        return len(self.model.blocks if self._has_blocks else self.model.feature_info)

    def _model_at(self, height: int, width: int) -> Any:
        model = super()._model_at(height, width)
        if not hasattr(model, "set_input_size"):
            return model
        own = getattr(self.model, "pos_embed", None)
        try:
            model.set_input_size(img_size=(height, width))
            if isinstance(own, Tensor) and own.ndim == 3 and hasattr(model, "num_prefix_tokens"):
                # timm would resample the grid the model has now, and in timm's way. On the CPU, because the
                # content_hash of the result must not depend on the device.
                positions, how = self.positions or (own, Resampling())
                found = resample_positions(
                    positions.detach().cpu(),
                    *model.patch_embed.grid_size,
                    num_prefix=num_without_place(model),
                    how=how,
                )
                model.pos_embed = nn.Parameter(found.to(own), requires_grad=own.requires_grad)
        except (RuntimeError, ValueError, AssertionError) as error:
            raise ConfigError(
                f"{self.name} cannot be run at {height} x {width} pixels ({first_line(error)})"
            ) from error
        return model

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
        listing = 'python -c "import timm; print(*timm.list_models())"'
        raise ConfigError(unknown("timm model", base, timm.list_models(), list_command=listing))
    try:
        tagged = timm.get_pretrained_cfg(name, allow_unregistered=True)
        if image_size is not None and tagged is not None and tagged.fixed_input_size:
            options["img_size"] = image_size
        return timm.create_model(name, pretrained=pretrained, **{"num_classes": 0, **options})
    except (RuntimeError, ValueError) as error:
        raise ConfigError(f"timm:{name} cannot be built: {first_line(error)}") from error


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
