"""The types every part of unic exchanges: Tokens, TokenMaps, Batch, and protocols for encoders and sources of targets.

Letters: B images, N patches, D E widths, H W pixels, h w grid.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple, Protocol, runtime_checkable

import torch
import torch.utils._pytree as pytree
from jaxtyping import Float, Int64, UInt8
from torch import Tensor

# What an encoder accepts: bytes as they come from a file, or floats in [0, 1].
Pixels = UInt8[Tensor, "B 3 H W"] | Float[Tensor, "B 3 H W"]


class Widths(NamedTuple):
    """Number of features of the CLS token and of a patch token.

    Equal for a ViT; a CNN whose patches come from an earlier stage has two widths.
    """

    cls: int
    patches: int


@dataclass(frozen=True)
class Tokens:
    """What an encoder says about images: one vector an image, one vector a patch.

    patches: row-major over the (square) patch grid; register tokens are left out.
    """

    cls: Float[Tensor, "B D"]
    patches: Float[Tensor, "B N E"]

    def float(self) -> "Tokens":
        return Tokens(self.cls.float(), self.patches.float())

    def to(self, device: torch.device) -> "Tokens":
        return Tokens(self.cls.to(device), self.patches.to(device))


pytree.register_pytree_node(
    Tokens,
    lambda tokens: ([tokens.cls, tokens.patches], None),
    lambda leaves, _: Tokens(*leaves),
    serialized_type_name="unic.tokens.Tokens",
)


@dataclass(frozen=True)
class TokenMaps:
    """Tokens that keep their places: what dense tasks read. h x w is the patch grid, which need not be square."""

    cls: Float[Tensor, "B D"]
    patches: Float[Tensor, "B E h w"]


@dataclass(frozen=True)
class Batch:
    """Images with their identity: all keyed randomness is a function of (seed, view, index).

    view: which of an image's views this is; the epoch while training, -1 for the plain validation view.
    """

    images: UInt8[Tensor, "B 3 H W"]
    index: Int64[Tensor, " B"]
    view: Int64[Tensor, " B"]

    def to(self, device: torch.device) -> "Batch":
        return Batch(*(t.to(device, non_blocking=True) for t in (self.images, self.index, self.view)))

    def pin_memory(self) -> "Batch":
        """From where a copy to an accelerator lets the host go on."""
        return Batch(self.images.pin_memory(), self.index.pin_memory(), self.view.pin_memory())


@runtime_checkable
class Encoder(Protocol):
    """Anything that turns pixels into Tokens: a teacher, a student, a student in a teacher's feature space.

    It takes uint8 pixels (or floats in [0, 1]), applies its own mean and std, and resizes to `image_size`.
    spaces: teachers in whose feature space it can answer, by reference, each with a function from this encoder to the
      one that does.
    """

    name: str
    dim: int
    patch_dim: int
    patch_size: int
    image_size: int

    @property
    def spaces(self) -> Mapping[str, Callable[..., "DenseEncoder"]]: ...

    def __call__(self, images: Pixels) -> Tokens: ...

    def content_hash(self) -> str: ...


@runtime_checkable
class DenseEncoder(Encoder, Protocol):
    """An encoder that gives maps of tokens of pictures of any size; `unic.models.encoder.ImageEncoder` is one.

    model: the network itself. stride: pixels from one patch to the next.
    """

    model: Any

    @property
    def stride(self) -> int: ...

    def normalize(self, images: Pixels) -> Float[Tensor, "B 3 H W"]: ...

    def at_size(self, height: int, width: int) -> "DenseEncoder": ...

    def maps(
        self, pixels: Float[Tensor, "B 3 H W"], layers: Sequence[int] = (-1,), *, norm: bool = True
    ) -> list[TokenMaps]: ...

    def eval(self) -> "DenseEncoder": ...

    def to(self, device: torch.device) -> "DenseEncoder": ...


@runtime_checkable
class TargetSource(Protocol):
    """Where targets come from: live teachers, or features stored on disk. The training loop cannot tell which."""

    @property
    def dims(self) -> Mapping[str, Widths]: ...

    def __call__(self, batch: Batch) -> dict[str, Tokens]: ...
