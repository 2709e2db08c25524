"""A model with its own mean, std and image size: pixels in, Tokens out. How a family is read is a subclass.

Letters: B images, N patches, D width, H W pixels, h w grid.
"""

import hashlib
import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from unic.errors import ConfigError
from unic.tokens import Pixels, Tokens, Widths

IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)


class ImageEncoder(nn.Module):
    """Any frozen network as an Encoder. A subclass gives `tokens`, and calls `measure` at the end of its __init__."""

    mean: Tensor
    std: Tensor
    widths: Widths
    """Features of CLS and of a patch."""
    grid: tuple[int, int]
    """Patches down and across."""

    def __init__(
        self,
        model: nn.Module,
        *,
        name: str,
        image_size: int,
        mean: Sequence[float] = IMAGENET_MEAN,
        std: Sequence[float] = IMAGENET_STD,
    ):
        super().__init__()
        self.spaces: Mapping[str, Callable[[], ImageEncoder]] = {}
        """Teachers in whose feature space the network can answer, by reference, each with the encoder that does."""
        if not (len(mean) == len(std) == 3 and all(map(math.isfinite, (*mean, *std))) and min(std) > 0):
            raise ConfigError(
                f"{name}: mean and std must be three numbers each, std above 0, got {mean} and {std}"
            )
        self.model: Any = model
        self.name = name
        self.image_size = image_size
        self.register_buffer("mean", torch.tensor(mean).view(3, 1, 1), persistent=False)
        self.register_buffer("std", torch.tensor(std).view(3, 1, 1), persistent=False)

    def forward(self, images: Pixels) -> Tokens:
        """images: uint8, or floats in [0, 1]; resized to `image_size` squared when they differ, whatever their aspect.

        Raises ConfigError for other numbers and shapes.
        """
        if images.ndim != 4 or images.shape[1] != 3:
            raise ConfigError(f"images must be (B, 3, H, W), got {tuple(images.shape)}")
        if images.dtype != torch.uint8 and not images.is_floating_point():
            raise ConfigError(f"images must be uint8, or floats in [0, 1], got {images.dtype}")
        return self.tokens(self.prepare(images))

    def tokens(self, pixels: Float[Tensor, "B 3 H W"]) -> Tokens:
        """What the model says about prepared pixels."""
        raise NotImplementedError

    def reading(self) -> tuple:
        """Where in the model the tokens are read, as far as that was a choice."""
        return ()

    def prepare(self, images: Pixels) -> Float[Tensor, "B 3 {self.image_size} {self.image_size}"]:
        """Pixels as the model expects them: floats, at its image size, with its mean and std."""
        size = (self.image_size, self.image_size)
        pixels = images.float() / 255 if images.dtype == torch.uint8 else images
        if images.shape[-2:] != size:
            pixels = F.interpolate(pixels, size, mode="bicubic", antialias=True).clamp(0, 1)
        return (pixels - self.mean) / self.std

    def fingerprint(self) -> str:
        """sha256 of everything that decides the output: weights, preprocessing, and where tokens are read."""
        choices = (self.image_size, self.mean.tolist(), self.std.tolist(), *self.reading())
        digest = hashlib.sha256(repr(choices).encode())
        for key, tensor in sorted(self.model.state_dict().items()):
            digest.update(f"{key} {tuple(tensor.shape)} {tensor.dtype}".encode())
            digest.update(tensor.detach().cpu().contiguous().flatten().view(torch.uint8).numpy())
        return digest.hexdigest()

    @torch.no_grad()
    def measure(self) -> None:
        """Finds widths and patch grid by looking at one black image."""
        side = self.image_size
        modes = {module: module.training for module in self.modules()}
        self.eval()
        try:
            tokens = self(torch.zeros(1, 3, side, side, dtype=torch.uint8, device=self.mean.device))
            defined = tokens.cls.is_meta or all(
                bool(part.isfinite().all()) for part in (tokens.cls, tokens.patches)
            )
        except ConfigError:
            raise
        except Exception as error:  # the model may be anybody's code
            raise ConfigError(
                f"{self.name}: {type(self.model).__name__} gives no CLS and patch tokens at {side} px "
                f"({(str(error).splitlines() or [type(error).__name__])[0]})"
            ) from error
        finally:
            for module, mode in modes.items():
                module.training = mode
        if not defined:
            raise ConfigError(f"{self.name} gives infinite or undefined features; its weights are damaged")
        num_patches = tokens.patches.shape[1]
        rows = round(num_patches**0.5)
        if rows * rows != num_patches:
            raise ConfigError(
                f"{self.name}: {num_patches} patches are no square grid; unic needs square maps"
            )
        self.widths = Widths(tokens.cls.shape[1], tokens.patches.shape[2])
        self.grid = (rows, rows)
        self.dim, self.patch_dim = self.widths
        self.patch_size = side // rows
