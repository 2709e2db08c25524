"""Is a teacher given its pixels with the mean and std of its training? What can be told without labels.

Two witnesses. What is published: the mean and std noted beside the weights, where a reference names them. And the
network itself: its first BatchNorm remembers the mean and variance that its input had in training, and only with the
right normalisation do the user's images have about the same ones.
Letters: B images, C channels.
"""

import contextlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import timm
import torch
import torch.nn.functional as F
from jaxtyping import Float, UInt8
from torch import Tensor, nn

from unic.method.config import StatisticsConfig
from unic.models.config import ENCODER_FILE
from unic.models.encoder import IMAGENET_MEAN, IMAGENET_STD, ImageEncoder
from unic.models.student import read_note
from unic.teachers import TEACHERS, parse_reference
from unic.tools.doctor.metrics import standardized


class Normalisation(NamedTuple):
    """Of pixels in [0, 1], by channel."""

    mean: tuple[float, ...]
    std: tuple[float, ...]

    def text(self) -> str:
        return f"mean {_numbers(self.mean)} and std {_numbers(self.std)}"

    def name(self) -> str | None:
        """The common one that this is."""
        return next((name for name, known in CONVENTIONS.items() if known.is_near(self)), None)

    def is_near(self, other: "Normalisation") -> bool:
        """Whether no number differs by as much as 0.01."""
        pairs = zip((*self.mean, *self.std), (*other.mean, *other.std), strict=True)
        return all(abs(a - b) < 0.01 for a, b in pairs)


CONVENTIONS = {
    "ImageNet": Normalisation(IMAGENET_MEAN, IMAGENET_STD),
    "0.5/0.5": Normalisation((0.5,) * 3, (0.5,) * 3),
    "0/1": Normalisation((0.0,) * 3, (1.0,) * 3),
    "CLIP": Normalisation((0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711)),
}


@dataclass(frozen=True, kw_only=True)
class Trial:
    """A teacher under one normalisation.

    convention: a name of CONVENTIONS, or "own" for the one the teacher declares.
    cosine: of the CLS features, standardised, with those under its own; 1 is no change. None for a single image, or
      for features that are not finite.
    misfit: how far the input of the first BatchNorm is from what it remembers, in nats: the median over channels of
      the divergence between the two as normal distributions. None for networks without BatchNorm.
    """

    convention: str
    normalisation: Normalisation
    cosine: float | None
    misfit: float | None


@torch.inference_mode()
def try_normalisations(
    encoder: ImageEncoder, images: UInt8[Tensor, "B 3 H W"], device: torch.device
) -> list[Trial]:
    """The teacher under its own normalisation, and under each common one that differs from that."""
    own = declared(encoder)
    trials = {"own": own}
    trials |= {name: other for name, other in CONVENTIONS.items() if not other.is_near(own)}
    layers = [module for module in encoder.modules() if _remembers(module)]
    reference, found = None, []
    for name, normalisation in trials.items():
        tried = encoder.replace()
        tried.mean, tried.std = (torch.tensor(x, device=device).view(3, 1, 1) for x in normalisation)
        with _first_input(layers) as first:
            cls = tried(images.to(device)).float().cls.cpu()
        reference = cls if reference is None else reference
        found.append(
            Trial(
                convention=name,
                normalisation=normalisation,
                cosine=_likeness(reference, cls),
                misfit=_misfit(*first[0]) if first else None,
            )
        )
    return found


def better_fit(trials: Sequence[Trial]) -> Trial | None:
    """The common normalisation that fits the first BatchNorm clearly better than the teacher's own; None: none does.

    Clearly: less than a third of the misfit, and 0.1 nats less.
    """
    own, *others = trials
    known = [trial for trial in others if trial.misfit is not None]
    if own.misfit is None or not known:
        return None
    best = min(known, key=lambda trial: trial.misfit or 0.0)
    assert best.misfit is not None
    return best if best.misfit < own.misfit / 3 and best.misfit < own.misfit - 0.1 else None


def declared(encoder: ImageEncoder) -> Normalisation:
    """The mean and std that the encoder applies."""
    mean, std = (tuple(round(x, 6) for x in t.flatten().tolist()) for t in (encoder.mean, encoder.std))
    return Normalisation(mean, std)


class Published(NamedTuple):
    """What is noted beside a teacher's weights; None where nothing is."""

    normalisation: Normalisation | None
    image_size: int | None


def published(reference: str, encoder: ImageEncoder) -> Published:
    """The mean, std and image size that come with the weights, wherever they can be looked up independently.

    For a teacher by name: timm's notes when its spec names weights of timm ("vit_base_patch16_224.dino"), and the
    spec's image size. Weights of other origin in an architecture of timm have other facts than timm's.
    """
    base, options = parse_reference(reference)
    facts, image_size = None, None
    if base in TEACHERS:
        spec = TEACHERS[base]
        cfg = timm.get_pretrained_cfg(spec.model) if "." in spec.model else None
        facts, image_size = cfg and cfg.to_dict(), spec.image_size
    elif base.startswith("timm:") or "model" in options:
        facts = getattr(encoder.model, "pretrained_cfg", None)
    elif base.startswith("file:"):
        image_size = _noted_size(Path(base.removeprefix("file:")).expanduser())
    if not facts:
        return Published(None, image_size)
    mean, std = (tuple(map(float, facts[key])) for key in ("mean", "std"))
    return Published(Normalisation(mean, std), facts["input_size"][-1])


def _noted_size(path: Path) -> int | None:
    """The image size of a student of unic."""
    note = read_note(path / ENCODER_FILE if path.is_dir() else path)
    return None if note is None else note.image_size


def _remembers(module: nn.Module) -> bool:
    """Whether this is a BatchNorm over maps with statistics of a training."""
    mean, variance = getattr(module, "running_mean", None), getattr(module, "running_var", None)
    if not isinstance(mean, Tensor) or not isinstance(variance, Tensor):
        return False
    return bool((mean != 0).any() and (variance > 0).all())


@contextlib.contextmanager
def _first_input(layers: Sequence[nn.Module]) -> Iterator[list[tuple[nn.Module, Tensor]]]:
    """While the block runs, the first of the layers to be called and what it is given; empty if none is."""
    seen: list[tuple[nn.Module, Tensor]] = []

    def keep(layer: nn.Module, inputs: Any) -> None:
        if not seen:
            seen.append((layer, inputs[0]))

    handles = [layer.register_forward_pre_hook(keep) for layer in layers]
    try:
        yield seen
    finally:
        for handle in handles:
            handle.remove()


def _misfit(layer: Any, maps: Tensor) -> float | None:
    if maps.ndim != 4 or maps.shape[1] != len(layer.running_mean):
        return None
    maps = maps.double()
    eps = getattr(layer, "eps", 1e-5)
    mean, variance = maps.mean((0, 2, 3)), maps.var((0, 2, 3)) + eps
    of_training = layer.running_var.double() + eps
    shift = (mean - layer.running_mean.double()).square()
    divergence_C = 0.5 * ((of_training / variance).log() + (variance + shift) / of_training - 1)
    return _finite(divergence_C.median())


def _likeness(own: Float[Tensor, "B D"], other: Float[Tensor, "B D"]) -> float | None:
    """Mean cosine after standardisation by the statistics of `own`."""
    if len(own) < 2:
        return None
    a, b = (standardized(cls[:, None], own[:, None], StatisticsConfig())[:, 0] for cls in (own, other))
    return _finite(F.cosine_similarity(a, b, dim=-1).mean())


def _finite(value: Tensor) -> float | None:
    return value.item() if value.isfinite() else None


def _numbers(values: tuple[float, ...]) -> str:
    texts = [f"{value:.3g}" for value in values]
    return texts[0] if len(set(texts)) == 1 else f"({', '.join(texts)})"
