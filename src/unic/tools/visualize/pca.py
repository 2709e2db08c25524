"""Patches coloured by their first three principal components (as in DINOv2, Fig. 1).

Letters: B images, h w grid of patches, E width, K C components.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, UInt8
from torch import Tensor

from unic.tools.visualize.extract import EncoderMaps
from unic.tools.visualize.principal_components import (
    Components,
    aligned,
    bounds,
    colours,
    correlation,
    principal_components,
)

CONSTANT = "no component:\nits patches are all the same"

ALIGNED = 8
"""Components of an encoder from which those nearest to the first encoder's three are turned. More than three, because
what is third for one may be fifth for another; few, because standardising lifts late ones, which hold noise."""

_PATCHES_A_COMPONENT = (
    10  # on the common grid; with fewer, any encoder could be turned to look like any other
)


@dataclass(frozen=True)
class Coloured:
    """pixels: None where there is no component. remark: what readers should know about the colours."""

    pixels: UInt8[Tensor, "B h w 3"] | None
    remark: str = ""


def in_own_colours(seen: EncoderMaps, *, foreground: bool = False) -> Coloured:
    """Components of this encoder over the patches of these pictures, each from its percentile 1 to 99.

    foreground: components and colours of the part of each picture that its first one sets apart; black elsewhere.
    """
    features = _places_first(seen.maps)
    inside = torch.ones(features.shape[:-1], dtype=torch.bool)
    if foreground:
        inside = torch.stack([_foreground(picture) for picture in features])
    found = principal_components(features[inside], 3) if inside.any() else None
    if found is None:
        return Coloured(None, CONSTANT)
    scores = found.scores(features)
    return Coloured(colours(scores, *bounds(scores[inside])) * inside[..., None])


def in_shared_colours(all_seen: Sequence[EncoderMaps]) -> list[Coloured]:
    """The first encoder in its own colours, and the others so that the same thing has the same colour.

    Widths differ, so each encoder's standardised scores are turned (orthogonal Procrustes) to come nearest to the first
    one's, on the first one's grid; and all are scaled by the first one's percentiles. A student's head in the space of
    that very teacher needs no turning: it is looked at along the teacher's own components, standardised too, because a
    student says less than its teacher and would be grey.
    """
    models = [principal_components(_places_first(seen.maps).flatten(0, 2), ALIGNED) for seen in all_seen]
    first = next((number for number, found in enumerate(models) if found is not None), None)
    if first is None:
        return [Coloured(None, CONSTANT) for _ in all_seen]
    reference, anchor = all_seen[first], models[first]
    assert anchor is not None
    wanted = anchor.scores(_places_first(reference.maps))[..., :3]
    limits = bounds(wanted.flatten(0, 2))
    coloured = []
    for number, (seen, found) in enumerate(zip(all_seen, models, strict=True)):
        if number == first:
            coloured.append(Coloured(colours(wanted, *limits)))
        elif found is None:
            coloured.append(Coloured(None, CONSTANT))
        else:
            in_its_space = seen.space is not None and seen.space == reference.space
            scores, remark = _along(anchor, seen, wanted) if in_its_space else _turned(found, seen, wanted)
            coloured.append(Coloured(colours(scores, *limits), f"{remark} {reference.name}"))
    return coloured


Compared = tuple[Float[Tensor, "B y x C"], str]
"""Scores on the encoder's own grid that mean what the first encoder's mean, and in words how near they come."""


def _turned(own: Components, seen: EncoderMaps, wanted: Float[Tensor, "B h w C"]) -> Compared:
    count = max(wanted[..., 0].numel() // _PATCHES_A_COMPONENT, wanted.shape[-1])
    scores = own.scores(_places_first(seen.maps))[..., :count]
    rotation, near = aligned(_on_grid_of(wanted, scores), wanted.flatten(0, 2))
    return scores @ rotation, f"r = {near:.2f} with"


def _along(anchor: Components, seen: EncoderMaps, wanted: Float[Tensor, "B h w C"]) -> Compared:
    """For features in the very space in which `anchor` was found."""
    scores = anchor.scores(_places_first(seen.maps))[..., : wanted.shape[-1]]
    near = correlation(_on_grid_of(wanted, scores), wanted.flatten(0, 2))
    places = scores.flatten(0, 2)
    spread = places.std(0)
    standard = (scores - places.mean(0)) / spread.clamp(min=1e-12)
    return standard, f"r = {near:.2f}, spread {spread.mean():.2f} of"


def _on_grid_of(wanted: Float[Tensor, "B h w C"], scores: Float[Tensor, "B y x K"]) -> Float[Tensor, "M K"]:
    """The same squares in as many cells as `wanted` has, one after the other."""
    if scores.shape[1:3] != wanted.shape[1:3]:
        channels_first = scores.permute(0, 3, 1, 2)  # (B, y, x, K) -> (B, K, y, x)
        resized = F.interpolate(channels_first, wanted.shape[1:3], mode="bilinear", antialias=True)
        scores = resized.permute(0, 2, 3, 1)
    return scores.flatten(0, 2)


def _places_first(maps: Float[Tensor, "B E h w"]) -> Float[Tensor, "B h w E"]:
    return maps.permute(0, 2, 3, 1)


def _foreground(features: Float[Tensor, "h w E"]) -> Bool[Tensor, "h w"]:
    """The side of the first component that is rarer along the border of the picture; nothing where there is none."""
    found = principal_components(features.flatten(0, 1), 1)
    if found is None:
        return torch.zeros(features.shape[:2], dtype=torch.bool)
    scores = found.scores(features)[..., 0]
    inside = scores > threshold(scores.flatten())
    border = torch.ones_like(inside)
    border[1:-1, 1:-1] = False
    return ~inside if inside[border].double().mean() > inside.double().mean() else inside


def threshold(values: Float[Tensor, " N"]) -> float:
    """Where two groups are best told apart: the largest variance between them (Otsu 1979)."""
    x, _ = values.sort()
    below = torch.arange(1, len(x), dtype=x.dtype)
    sums = x.cumsum(0)
    means = sums[:-1] / below, (sums[-1] - sums[:-1]) / (len(x) - below)
    between = below * (len(x) - below) * (means[0] - means[1]).square()
    cut = int(between.argmax())
    return float((x[cut] + x[cut + 1]) / 2)
