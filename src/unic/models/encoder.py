"""Any timm model as an Encoder: pixels in, Tokens out, with the model's own mean, std and image size.

Letters: B images, N patches, D width, H W pixels, h w grid.
"""

import hashlib
from collections.abc import Sequence
from typing import Any, Literal

import timm
import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from unic.errors import ConfigError
from unic.plugins import unknown
from unic.tokens import Pixels, Tokens, Widths

IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)

ClsRule = Literal["auto", "token", "pooled"]


class TimmEncoder(nn.Module):
    """Reads CLS and patch tokens from a timm model.

    cls: "token" is the class token after the final norm; "pooled" is what timm feeds its classifier (pooling,
      `fc_norm` or attention pooling included); "auto" is the token where timm classifies from it, else pooled.
    stage: which intermediate block or stage gives the patches; None is the last feature map.
    A CNN's patches are the cells of its feature map; a ViT's leave out class and register tokens.
    """

    mean: Tensor
    std: Tensor

    def __init__(
        self,
        model: nn.Module,
        *,
        name: str,
        image_size: int,
        mean: Sequence[float] = IMAGENET_MEAN,
        std: Sequence[float] = IMAGENET_STD,
        cls: ClsRule = "auto",
        stage: int | None = None,
    ):
        super().__init__()
        self.model: Any = model
        self.name = name
        self.image_size = image_size
        self.stage = stage
        self.cls_rule = _cls_rule(model, cls, name)
        self.register_buffer("mean", torch.tensor(mean).view(3, 1, 1), persistent=False)
        self.register_buffer("std", torch.tensor(std).view(3, 1, 1), persistent=False)
        if _is_convolutional(model):
            # Depthwise convolutions on a CPU are four times faster in this layout (tf_efficientnet_lite0, 64 px).
            model.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        _check_image_size(model, image_size, name)
        self.widths, self.grid = self._measure()
        self.dim, self.patch_dim = self.widths
        self.patch_size = image_size // self.grid[0]

    def forward(self, images: Pixels) -> Tokens:
        """Tokens after the final norm. images: uint8, or floats in [0, 1], of any size (resized when it differs)."""
        pixels = self.prepare(images)
        if self.stage is None:
            features = self.model.forward_features(pixels)
            patches = self._patches(features)
        else:
            features, maps = self.model.forward_intermediates(pixels, indices=[self.stage], output_fmt="NCHW")
            patches = maps[0].flatten(2).transpose(1, 2)  # (B, D, h, w) -> (B, N, D)
        if self.cls_rule == "token":
            return Tokens(features[:, 0], patches)
        return Tokens(self.model.forward_head(features, pre_logits=True), patches)

    def block_outputs(self, images: Pixels) -> list[Tokens]:
        """Tokens after each block of a ViT, before the final norm: what the ladder reads (UNIC, Sec. 3.2)."""
        blocks = self.model.forward_intermediates(
            self.prepare(images),
            return_prefix_tokens=True,
            norm=False,
            output_fmt="NLC",
            intermediates_only=True,
        )
        return [Tokens(prefix[:, 0], patches) for patches, prefix in blocks]

    def prepare(self, images: Pixels) -> Float[Tensor, "B 3 {self.image_size} {self.image_size}"]:
        """Pixels as the model expects them: floats, at its image size, with its mean and std."""
        size = (self.image_size, self.image_size)
        pixels = images.float() / 255 if images.dtype == torch.uint8 else images
        if images.shape[-2:] != size:
            pixels = F.interpolate(pixels, size, mode="bicubic", antialias=True).clamp(0, 1)
        pixels = (pixels - self.mean) / self.std
        return (
            pixels.contiguous(memory_format=torch.channels_last) if _is_convolutional(self.model) else pixels
        )

    def fingerprint(self) -> str:
        """sha256 of everything that decides the output: weights, preprocessing, and where tokens are read."""
        digest = hashlib.sha256(
            repr((self.image_size, self.mean.tolist(), self.std.tolist(), self.cls_rule, self.stage)).encode()
        )
        for key, tensor in sorted(self.model.state_dict().items()):
            digest.update(f"{key} {tuple(tensor.shape)} {tensor.dtype}".encode())
            digest.update(tensor.detach().cpu().contiguous().flatten().view(torch.uint8).numpy())
        return digest.hexdigest()

    def _patches(self, features: Tensor) -> Float[Tensor, "B N D"]:
        if features.ndim == 3:
            return features[:, getattr(self.model, "num_prefix_tokens", 0) :]
        if getattr(self.model, "output_fmt", "NCHW") == "NHWC":
            return features.flatten(1, 2)
        return features.flatten(2).transpose(1, 2)  # (B, D, h, w) -> (B, N, D)

    @torch.no_grad()
    def _measure(self) -> tuple[Widths, tuple[int, int]]:
        """Widths and patch grid, by looking at one black image."""
        modes = {module: module.training for module in self.model.modules()}
        self.model.eval()
        try:
            tokens = self(torch.zeros(1, 3, self.image_size, self.image_size, dtype=torch.uint8))
        except (RuntimeError, AttributeError, TypeError, IndexError, AssertionError) as error:
            raise ConfigError(
                f"{self.name}: timm's {type(self.model).__name__} gives no CLS and patch tokens at "
                f"{self.image_size} px and stage {self.stage} ({str(error).splitlines()[0]})"
            ) from error
        finally:
            for module, mode in modes.items():
                module.training = mode
        num_patches = tokens.patches.shape[1]
        side = round(num_patches**0.5)
        if side * side != num_patches:
            raise ConfigError(
                f"{self.name}: {num_patches} patches are no square grid; unic needs square maps"
            )
        return Widths(tokens.cls.shape[1], tokens.patches.shape[2]), (side, side)


def create_timm(
    name: str, *, image_size: int | None = None, pretrained: bool = False, **options: Any
) -> nn.Module:
    """timm's model without its classifier, built for `image_size` where the architecture depends on it.

    Raises ConfigError with the nearest names when timm does not know the model.
    """
    base = name.split(".")[0]
    if not timm.is_model(base):
        raise ConfigError(unknown("timm model", base, timm.list_models()))
    tagged = timm.get_pretrained_cfg(name, allow_unregistered=True)
    if image_size is not None and tagged is not None and tagged.fixed_input_size:
        options["img_size"] = image_size
    try:
        return timm.create_model(name, pretrained=pretrained, **{"num_classes": 0, **options})
    except (RuntimeError, ValueError) as error:
        raise ConfigError(f"timm:{name} cannot be built: {str(error).splitlines()[0]}") from error


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
