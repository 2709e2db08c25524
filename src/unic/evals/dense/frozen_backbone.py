"""An encoder as dense tasks see it: pictures of any size in, maps of tokens out, always frozen.

Letters: B pictures, H W pixels, h w padded.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int64, UInt8
from torch import Tensor

from unic.evals.registry import Precision
from unic.method.types import DenseEncoder, TokenMaps


@dataclass(frozen=True)
class FrozenBackbone:
    """Eval mode and inference mode: no drop path, no graph (both were on in the reference's evaluation).

    layers: positions of blocks; negative ones count from the end.
    norm: read them through the encoder's final norm.
    """

    encoder: DenseEncoder
    layers: tuple[int, ...]
    norm: bool
    device: torch.device
    precision: Precision
    _sizes: dict[tuple[int, int], DenseEncoder] = field(default_factory=dict)

    def __call__(
        self, images: UInt8[Tensor, "B 3 H W"], inside: Int64[Tensor, "B 2"] | None = None
    ) -> list[TokenMaps]:
        """float32 maps of each layer, on the device, fit for a head that learns.

        inside: height and width of each picture, which lies at the top left; what is beyond becomes 0 after
          normalisation, as mmseg pads. None: pictures fill their tensor.
        """
        pixels = self.encoder.normalize(images.to(self.device, non_blocking=True))
        if inside is not None:
            pixels = pixels * _within(inside.to(self.device, non_blocking=True), images.shape[-2:])
        pixels = centre_padded(pixels, self.encoder.stride)
        sized = self.at_size(pixels.shape[-2], pixels.shape[-1])
        with (
            torch.inference_mode(),
            torch.autocast(self.device.type, torch.bfloat16, enabled=self.precision == "bf16"),
        ):
            maps = sized.maps(pixels, self.layers, norm=self.norm)
        # Copies, because nothing can learn from tensors made in inference mode.
        return [TokenMaps(layer.cls.float().clone(), layer.patches.float().clone()) for layer in maps]

    def at_size(self, height: int, width: int) -> DenseEncoder:
        """The encoder for pictures of this size, whole patches, in eval mode."""
        if (height, width) not in self._sizes:
            self._sizes[height, width] = self.encoder.at_size(height, width).eval()
        return self._sizes[height, width]

    def padded(self, size: tuple[int, int]) -> tuple[int, int]:
        """Height and width once the picture is filled up to whole patches."""
        stride = self.encoder.stride
        return -(-size[0] // stride) * stride, -(-size[1] // stride) * stride

    def widths(self, size: tuple[int, int]) -> list[tuple[int, tuple[int, ...]]]:
        """For each layer the width of CLS, and the shape of the map of patches, of pictures of this size."""
        shape = (1, 3, *self.padded(size))
        maps = self(torch.zeros(shape, dtype=torch.uint8))
        return [(layer.cls.shape[1], tuple(layer.patches.shape[1:])) for layer in maps]

    def facts(self, sizes: Sequence[tuple[int, int]]) -> dict:
        """Everything that decides the maps of pictures of these sizes."""
        return {
            "encoders": [self.at_size(*self.padded(size)).content_hash() for size in sizes],
            "layers": self.layers,
            "norm": self.norm,
            "precision": self.precision,
            "matmul": torch.get_float32_matmul_precision(),
        }


def _within(inside: Int64[Tensor, "B 2"], size: torch.Size) -> Float[Tensor, "B 1 H W"]:
    rows = torch.arange(size[0], device=inside.device)[None, :, None] < inside[:, 0, None, None]
    columns = torch.arange(size[1], device=inside.device)[None, None, :] < inside[:, 1, None, None]
    return (rows & columns)[:, None].float()


def centre_padded(pixels: Float[Tensor, "B 3 H W"], multiple: int) -> Float[Tensor, "B 3 h w"]:
    """Zeros around the picture until both sides are multiples; the odd one at the right or the bottom.

    Source: CenterPadding of DINOv2's dense evaluations.
    """
    down, across = (-side % multiple for side in pixels.shape[-2:])
    return F.pad(pixels, (across // 2, across - across // 2, down // 2, down - down // 2))
