"""A model with its own mean, std and image size: pixels in, Tokens out. How a family is read is a subclass.

Letters: B images, N patches, D E widths, H W pixels, h w grid.
"""

import copy
import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeVar

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from unic.core.errors import ConfigError, first_line
from unic.method.types import Pixels, TokenMaps, Tokens, Widths
from unic.models.config import IMAGENET_MEAN, IMAGENET_STD
from unic.models.share_weights import share_weights
from unic.models.weights import hash_module

T = TypeVar("T")
E = TypeVar("E", bound="ImageEncoder")

Spaces = Mapping[str, Callable[[Any], "ImageEncoder"]]
"""By the reference of a teacher, from an encoder to the one that answers in that teacher's feature space."""

Normalize = Callable[[Tensor, Tensor, Tensor], Tensor]
"""A function like `normalize`."""


class ImageEncoder(nn.Module):
    """Any frozen network as an Encoder. A subclass gives `tokens`, and calls `measure` at the end of its __init__."""

    mean: Tensor
    std: Tensor
    widths: Widths
    """Features of CLS and of a patch."""
    grid: tuple[int, int]
    """Patches down and across."""
    size: tuple[int, int] | None = None
    """Height and width of the pictures that `at_size` made this for; None: squares of `image_size`."""
    _original: "tuple[ImageEncoder, ...]" = ()
    """The encoder that `at_size` was asked of; in a tuple, so that torch does not take it for a part."""

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
        self.spaces: Spaces = {}
        """Teachers in whose feature space the network can answer, by reference."""
        if not (len(mean) == len(std) == 3 and all(map(math.isfinite, (*mean, *std))) and min(std) > 0):
            raise ConfigError(
                f"{name}: mean and std must be three numbers each, std above 0, got {mean} and {std}"
            )
        self.model: Any = model
        self.name = name
        self._normalize: Normalize = normalize
        self._content_hash: str | None = None
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
        if images.shape[-2:] != size:
            pixels = images.float() / 255 if images.dtype == torch.uint8 else images
            images = F.interpolate(pixels, size, mode="bicubic", antialias=True).clamp(0, 1)
        return self.normalize(images)

    def normalize(self, images: Pixels) -> Float[Tensor, "B 3 H W"]:
        """Floats with the model's mean and std, in the size they come in."""
        return self._normalize(images, self.mean, self.std)

    def replace(
        self: E,
        *,
        name: str | None = None,
        spaces: "Spaces | None" = None,
        network: nn.Module | None = None,
        normalize: "Normalize | None" = None,
        content_hash: str | None = None,
    ) -> E:
        """The same encoder with other values for these; this one stays as it is, and they share their weights.

        network: another form of the network, which computes the same. normalize: another form of that function.
        content_hash: that of this encoder, where the weights of `network` are not the very same.
        """
        other = self._copy()
        if network is not None:
            other.model = network
            other._content_hash = content_hash
        other.name = self.name if name is None else name
        other.spaces = self.spaces if spaces is None else spaces
        other._normalize = normalize or self._normalize
        return other

    @property
    def stride(self) -> int:
        """Pixels from one patch to the next; `maps` wants pictures of whole patches."""
        return self.patch_size

    def at_size(self, height: int, width: int) -> "ImageEncoder":
        """The same network for pictures of this size, which its `maps` takes; weights are shared, not copied.

        height, width: in pixels, multiples of `stride`. Its `image_size` and `grid` still speak of squares.
        The copy is made on the device where the encoder is; moving one of the two afterwards does not move the other.
        Raises ConfigError where the network cannot change its size.
        """
        p = self.stride
        if min(height, width) < p or height % p or width % p:
            raise ConfigError(
                f"{self.name} reads pictures in patches of {p} pixels, got {height} x {width}; pad both sides to "
                f"multiples of {p}"
            )
        original = (
            self._original[0] if self._original else self
        )  # what was resampled once is not resampled again
        resized = original._copy()
        resized.model = original._model_at(height, width)
        resized._content_hash = None
        resized.size = (height, width)
        resized._original = (original,)
        return resized

    def maps(
        self, pixels: Float[Tensor, "B 3 H W"], layers: Sequence[int] = (-1,), *, norm: bool = True
    ) -> list[TokenMaps]:
        """Tokens after some blocks, in their places.

        pixels: normalised, of the size that `at_size` was asked for.
        layers: positions of blocks; negative ones count from the end.
        norm: through the final norm.
        Raises ConfigError where the network cannot be read like this.
        """
        if tuple(layers) == (-1,) and norm:
            return [self._run_at(pixels, self._last_map)]
        if self._num_blocks is None:
            raise ConfigError(
                f"{self.name} can be read after its last block and final norm only, not at {tuple(layers)}"
                f"{'' if norm else ' before the norm'}"
            )
        numbers = block_numbers(layers, self._num_blocks, self.name)
        found = self._run_at(pixels, lambda pixels: self._inner_maps(pixels, sorted(set(numbers)), norm))
        return [found[number] for number in numbers]

    def content_hash(self) -> str:
        """sha256 of everything that decides the output: weights, preprocessing, and where tokens are read."""
        if self._content_hash is not None:
            return self._content_hash
        choices = (self.image_size, self.mean.tolist(), self.std.tolist(), *self.reading())
        if self.size is not None:
            choices = (*choices, self.size)
        return hash_module(self.model, *choices)

    @property
    def _num_blocks(self) -> int | None:
        """How many blocks `_inner_maps` can read; None: the network is read at its end only."""
        return None

    def _last_map(self, pixels: Tensor) -> TokenMaps:
        return self._placed(self.tokens(pixels), pixels)

    def _inner_maps(self, pixels: Tensor, numbers: list[int], norm: bool) -> dict[int, TokenMaps]:
        """Tokens after the blocks of these numbers, which ascend."""
        raise NotImplementedError

    def _copy(self: E) -> E:
        other = copy.copy(self)
        # A copy of a module shares these with it.
        other._modules, other._buffers = dict(self._modules), dict(self._buffers)
        return other

    def _model_at(self, height: int, width: int) -> Any:
        """The network for pictures of this size, which shares the weights."""
        return share_weights(self.model)

    def _run_at(self, pixels: Tensor, run: Callable[[Tensor], T]) -> T:
        """What the network says, or that it cannot read pictures of this size."""
        try:
            return run(pixels)
        except ConfigError:
            raise
        except (RuntimeError, ValueError, AssertionError) as error:
            if isinstance(error, torch.OutOfMemoryError):
                raise
            height, width = pixels.shape[-2:]
            raise ConfigError(
                f"{self.name} cannot read pictures of {height} x {width} pixels; its own size is {self.image_size} "
                f"({first_line(error)})"
            ) from error

    def _placed(self, tokens: Tokens, pixels: Tensor) -> TokenMaps:
        """Patches back in the places they have in the picture."""
        height, width = (side // self.stride for side in pixels.shape[-2:])
        if tokens.patches.shape[1] != height * width:
            raise ConfigError(
                f"{self.name} gives {tokens.patches.shape[1]} patches for a picture of {pixels.shape[-2]} x "
                f"{pixels.shape[-1]} pixels; with patches of {self.stride} pixels, {height} x {width} were expected"
            )
        # (B, N, E) -> (B, E, h, w)
        return TokenMaps(tokens.cls, tokens.patches.transpose(1, 2).unflatten(2, (height, width)))

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
                f"({first_line(error)})"
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


def normalize(
    images: Pixels, mean: Float[Tensor, "3 1 1"], std: Float[Tensor, "3 1 1"]
) -> Float[Tensor, "B 3 H W"]:
    """uint8, or floats in [0, 1], as floats with a model's mean and std."""
    pixels = images.float() / 255 if images.dtype == torch.uint8 else images
    return (pixels - mean) / std


def block_numbers(layers: Sequence[int], depth: int, name: str) -> list[int]:
    """Positions of blocks counted from 0; negative ones count from the end. Raises ConfigError for others."""
    outside = [layer for layer in layers if not -depth <= layer < depth]
    if outside or not layers:
        raise ConfigError(
            f"{name} has blocks 0 to {depth - 1}, or -1 to -{depth} from the end; asked for {list(outside) or 'none'}"
        )
    return [layer % depth for layer in layers]
