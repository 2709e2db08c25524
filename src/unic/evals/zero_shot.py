"""Zero-shot classification: an image is of the class whose name, in many sentences, is nearest to it.

Images and texts meet in the space of a CLIP-type teacher: that of the encoder itself, or of a student's head,
whose output is first brought back into the teacher's scale. Source: CLIP (arXiv:2103.00020), Sec. 3.1.4.

Letters: Q test images, K classes, U different names, D width of CLS, E width of the common space, R ranks.
"""

import dataclasses
import hashlib
import logging
from collections.abc import Collection, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from unic.core.errors import ConfigError, WeightsError
from unic.core.progress import with_progress
from unic.core.registry import unknown
from unic.core.results import Result
from unic.evals.artifact_cache import content_key, load_artifact, save_artifact
from unic.evals.dataset_features import EvalData
from unic.evals.prompts import class_names, templates
from unic.evals.protocols.zero_shot import ZeroShotConfig
from unic.method.types import Encoder
from unic.teachers import parse_reference, short_name
from unic.teachers.text_tower import TextTower, has_texts, load_text_tower

log = logging.getLogger(__name__)

PROTOCOL = "zero-shot-1"

_TEXTS_AT_ONCE = 256


def zero_shot_results(encoder: Encoder, data: EvalData, config: ZeroShotConfig) -> list[Result]:
    """Top-1, top-5 and, where each image has one right answer, mean per-class accuracy on the test images.

    Where only some classes count in the test set, also the top-1 among all classes. The results are the encoder's,
    under the content_hash of what answered; of a student with several such heads, those of `<student>@<teacher>`.
    """
    reference = choose_teacher(encoder.spaces, config.teacher, encoder.name)
    names, origin = class_names(data.name, data.classes, config.names)
    tower = load_text_tower(reference).to(data.device)
    space = encoder.spaces[reference](encoder)
    _check_width(space, tower, reference)
    texts = class_embeddings(tower, names, reference=reference, cache=data.cache).to(data.device)
    answered = data if space is encoder else dataclasses.replace(data, encoder=space.to(data.device))
    features = answered.features("test").to(data.device)
    accuracies = data.accuracies(partial(zero_shot_scores, texts=texts, tower=tower), features)
    results = [
        answered.result("zero-shot", metric, value, protocol=f"{PROTOCOL} {origin}".strip())
        for metric, value in accuracies.items()
    ]
    if len(_with_texts(encoder.spaces)) > 1:
        return results
    return [dataclasses.replace(result, model=encoder.name) for result in results]


def choose_teacher(spaces: Collection[str], wanted: str | None, name: str) -> str:
    """The reference of the teacher in whose space images meet texts.

    spaces: references of the teachers in whose space the encoder called `name` can answer.
    wanted: one of them, by reference or short name; None: the only one with texts.
    Raises ConfigError where that is none or several.
    """
    possible = _with_texts(spaces)
    if wanted is not None:
        known = {reference: (reference, short_name(reference)) for reference in possible}
        possible = [reference for reference in possible if wanted in known[reference]]
        if not possible and known:
            nearest = unknown("teacher with texts", wanted, {short for _, short in known.values()})
            raise ConfigError(f"{name}: {nearest} (--zero-shot.teacher)")
    if not possible:
        raise ConfigError(
            f"{name} has no way to texts: zero-shot needs a teacher of the CLIP type (metaclip_vith14 or "
            f"open_clip:<architecture>/<tag>), or a student with a ladder that learned from one under such a name; "
            f"{_instead(spaces)}"
        )
    if len(possible) > 1:
        raise ConfigError(
            f"{name} has several ways to texts; choose one with --zero-shot.teacher: {', '.join(possible)}"
        )
    _, options = parse_reference(possible[0])
    changed = sorted({"layer", "cls"} & options.keys())
    if changed:
        raise ConfigError(
            f"{possible[0]}: with {' and '.join(changed)} its CLS is not the one that was trained to meet texts; "
            f"zero-shot needs the teacher without"
        )
    return possible[0]


def class_embeddings(
    tower: TextTower, names: Sequence[str], *, reference: str, cache: Path | None
) -> Float[Tensor, "K E"]:
    """The L2-normalised mean over the sentences of each class's name, float32, on the CPU.

    Each different name is encoded once, so that classes of one name are exactly equal.
    reference: the teacher whose texts these are; it says how the weights are used (activations, tokenizer).
    cache: folder they are kept in, and used again for the same sentences, weights and reference.
    """
    words = list(dict.fromkeys(names))
    sentences = [template(word) for word in words for template in templates()]
    facts = {
        "version": PROTOCOL,
        "reference": parse_reference(reference)[0],
        "tower": tower.content_hash(),
        "sentences": hashlib.sha256("\n".join([str(len(words)), *sentences]).encode()).hexdigest(),
        "matmul": torch.get_float32_matmul_precision(),
    }
    folder = cache / "texts" / content_key(facts) if cache else None
    what = "embeddings of texts are"
    texts = load_artifact(folder, what, partial(_read_texts, num_names=len(words))) if folder else None
    if texts is None:
        texts = _encode(tower, sentences, len(words), short_name(reference))
        if folder:
            save_artifact(folder, what, {"texts": texts}, facts)
    number = {word: i for i, word in enumerate(words)}
    return texts[[number[name] for name in names]]


@torch.no_grad()
def zero_shot_scores(
    features: Float[Tensor, "Q D"], texts: Float[Tensor, "K E"], tower: TextTower
) -> Float[Tensor, "Q K"]:
    """The cosine of each image and class, times the temperature the tower was trained with.

    features: CLS in the scale of the tower's own image tower, before its projection.
    """
    # Equal columns of one product can differ by rounding; classes of one name must not.
    different_UE, index_K = texts.unique(dim=0, return_inverse=True)
    return (tower.logit_scale * tower.project(features) @ different_UE.T)[:, index_K]


def _with_texts(spaces: Collection[str]) -> list[str]:
    return [reference for reference in spaces if has_texts(reference)]


def _instead(spaces: Collection[str]) -> str:
    """What an encoder without texts has."""
    if not spaces:
        return "it has neither a space of texts nor heads"
    return f"the spaces that it answers in, {', '.join(sorted(spaces))}, have no texts"


def _check_width(space: Encoder, tower: TextTower, reference: str) -> None:
    projection = tower.projection
    if projection is not None and len(projection) != space.dim:
        raise WeightsError(
            f"{space.name} gives {space.dim} features, but {reference} projects {len(projection)} into the space of "
            f"texts; was it trained from another teacher of this name?"
        )


def _encode(tower: TextTower, sentences: Sequence[str], num_names: int, teacher: str) -> Float[Tensor, "U E"]:
    per_name = len(sentences) // num_names
    step = max(1, _TEXTS_AT_ONCE // per_name) * per_name
    starts = range(0, len(sentences), step)
    parts = []
    for first in with_progress(
        starts, len(sentences), teacher, unit="texts", size=lambda first: len(sentences[first : first + step])
    ):
        encoded = tower.encode(sentences[first : first + step]).unflatten(0, (-1, per_name))
        parts.append(F.normalize(encoded.mean(1), dim=1).float().cpu())
    texts = torch.cat(parts)
    if not texts.isfinite().all():
        raise WeightsError(f"{teacher}: its text tower gives numbers that are not finite; check the weights")
    return texts


def _read_texts(tensors: dict[str, Tensor], facts: Any, num_names: int) -> Float[Tensor, "U E"]:
    texts = tensors["texts"]
    if texts.ndim != 2 or len(texts) != num_names or texts.dtype != torch.float32:
        raise WeightsError(f"{texts.dtype} {tuple(texts.shape)} for {num_names} names")
    return texts
