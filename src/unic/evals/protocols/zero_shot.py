"""zero-shot: the class whose name, in many sentences, is nearest to the image (CLIP, arXiv:2103.00020, Sec. 3.1.4)."""

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from unic.core.results import Result
from unic.evals.registry import EVALUATIONS, EvalOptions, Evaluation, own_settings

if TYPE_CHECKING:
    from unic.evals.dataset_features import EvalData
    from unic.method.types import Encoder


@dataclass(frozen=True, kw_only=True)
class ZeroShotConfig:
    """The defaults are CLIP's protocol; other names of the classes are named in the protocol of the results."""

    teacher: str | None = None
    """Of the teachers with texts in whose space the encoder can answer; not needed when there is one."""
    names: Path | None = None
    """A text file with one name a line, in the order of the classes, instead of the names unic knows."""


def run(encoder: "Encoder", data: "EvalData", options: EvalOptions) -> list[Result]:
    from unic.evals.zero_shot import zero_shot_results

    return zero_shot_results(encoder, data, own_settings(options, "zero-shot"))


def answers_in_a_space_of_texts(encoder: "Encoder") -> bool:
    from unic.teachers.text_tower import has_texts

    return any(map(has_texts, encoder.spaces))


EVALUATIONS.add(
    "zero-shot",
    Evaluation(
        "zero-shot",
        run,
        "nearest class name in the space of a CLIP-type teacher, 80 sentences a class (CLIP)",
        ZeroShotConfig(),
        uses_train=False,
        fits=answers_in_a_space_of_texts,
    ),
)
