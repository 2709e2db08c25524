"""The linear head of depth, for each patch how likely each of 256 depths is (DINOv2, Sec. 7.4), and its loss.

Letters: B pictures, D E widths, K bins, h w grid, H W pixels.
"""

from collections.abc import Mapping, Sequence

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from unic.core.errors import WeightsError
from unic.method.types import TokenMaps
from unic.models.state_keys import below
from unic.models.weights import load_strictly

NUM_BINS = 256

_UPSAMPLED = 4
_LEAST = 0.1  # added to every bin, so that none is ever impossible

_EPSILON = 1e-3  # metres, added before the logarithm
_MEAN_WEIGHT = 0.15
_WARMUP_STEPS = 100

# The four blocks that linear-4 reads, by the depth of the ViT.
_FOUR = {12: (2, 5, 8, 11), 24: (4, 11, 17, 23), 40: (9, 19, 29, 39)}


def layers_for(depth: int | None, count: int) -> tuple[int, ...]:
    """The blocks that a head of one or four layers reads.

    depth: of a ViT, whose four blocks are evenly spread where they are not published; None: the last four stages.
    """
    if count == 1:
        return (-1,)
    if depth is None:
        return (-4, -3, -2, -1)
    return _FOUR.get(depth) or tuple(max(depth * (i + 1) // count - 1, 0) for i in range(count))


class DepthHead(nn.Module):
    """The expected depth over bins of equal width between `nearest` and `farthest`, in metres.

    widths: of CLS and patches together, for each map; CLS is joined to every patch.
    """

    bins: Tensor

    def __init__(self, widths: Sequence[int], *, nearest: float, farthest: float):
        super().__init__()
        self.nearest, self.farthest = nearest, farthest
        self.conv_depth = nn.Conv2d(sum(widths), NUM_BINS, 1)
        self.register_buffer("bins", torch.linspace(nearest, farthest, NUM_BINS), persistent=False)

    def forward(self, maps: Sequence[TokenMaps], size: Sequence[int]) -> Float[Tensor, "B H W"]:
        """Metres for each pixel of pictures of this height and width.

        The original upsamples features fourfold, then convolves. A 1x1 convolution and bilinear upsampling commute, so
        the convolution comes first here, at a sixteenth of the work.
        """
        grid = maps[0].patches.shape[-2:]
        joined = [part for layer in maps for part in _with_cls(layer, grid)]
        scores = self.conv_depth(torch.cat(joined, dim=1))
        scores = F.interpolate(scores, scale_factor=_UPSAMPLED, mode="bilinear", align_corners=False)
        shares_BKhw = scores.relu() + _LEAST
        shares_BKhw = shares_BKhw / shares_BKhw.sum(1, keepdim=True)
        depth = torch.einsum("bkhw,k->bhw", shares_BKhw, self.bins).clamp(self.nearest, self.farthest)
        return F.interpolate(depth[:, None], tuple(size), mode="bilinear", align_corners=False)[:, 0]


def sig_loss(
    predicted: Float[Tensor, "B H W"], truth: Float[Tensor, "B H W"], *, step: int
) -> Float[Tensor, ""]:
    """sqrt(var(g) + 0.15 mean(g)^2) of g = log predicted - log truth, over all pixels of known depth together.

    Source: the scale-invariant loss of logarithms (Eigen et al., 2014), as AdaBins and mdet use it.
    The first 100 steps leave the variance out. Without a known pixel it is 0.
    DINOv2's configuration adds half a gradient loss; as its code stands, that compares images of the batch instead of
    pixels, and is 0 for the two images a GPU that it was trained with. It is left out here.
    """
    known = truth > 0
    count = known.sum()
    g = torch.where(known, (predicted + _EPSILON).log() - (truth + _EPSILON).log(), 0)
    mean = g.sum() / count.clamp(min=1)
    total = _MEAN_WEIGHT * mean**2
    if step >= _WARMUP_STEPS:
        total = total + torch.where(known, (g - mean) ** 2, 0).sum() / (count - 1).clamp(min=1)
    # The root of 0 has no finite slope; nothing is learned from a batch that is exactly right.
    return torch.where(total > 0, total.clamp(min=1e-12).sqrt(), 0.0 * total)


def read_depth_head(
    state: Mapping[str, Tensor], widths: Sequence[int], *, nearest: float, farthest: float, origin: str
) -> DepthHead:
    """A head as DINOv2 publishes it (decode_head.conv_depth.*), or as `DepthHead` names it.

    Raises WeightsError naming `origin` where it is no such head, or one for other features.
    """
    own = dict(below("decode_head.", state) or state)
    weight = own.get("conv_depth.weight")
    if weight is None or weight.ndim != 4 or weight.shape[0] != NUM_BINS:
        raise WeightsError(
            f"{origin} is no linear head for depth: it has no conv_depth.weight of {NUM_BINS} bins "
            f"({', '.join(list(state)[:5]) or 'it is empty'})"
        )
    if weight.shape[1] != sum(widths):
        other = "four (--depth.blocks four)" if len(widths) == 1 else "the last (--depth.blocks last)"
        raise WeightsError(
            f"{origin} reads features of width {weight.shape[1]}, and the encoder gives "
            f"{' + '.join(map(str, widths))}; it is for {other}, or for another encoder"
        )
    head = DepthHead(widths, nearest=nearest, farthest=farthest)
    load_strictly(head, own, origin)
    return head.eval()


def _with_cls(layer: TokenMaps, grid: torch.Size) -> list[Tensor]:
    """The map, on the grid of the first one, and its CLS at every place."""
    patches = layer.patches
    if patches.shape[-2:] != grid:
        patches = F.interpolate(patches, grid, mode="bilinear", align_corners=False)
    return [patches, layer.cls[:, :, None, None].expand(-1, -1, *grid)]
