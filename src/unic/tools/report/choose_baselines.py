"""Which encoders the others are compared with: the teachers, or one encoder by its name."""

from collections.abc import Sequence

from unic.core.errors import ConfigError
from unic.core.registry import unknown
from unic.core.results import StoredResult
from unic.teachers import SCHEMES, TEACHERS, short_name

BEST_TEACHER = "best-teacher"


def choose_baselines(
    results: Sequence[StoredResult], teachers: Sequence[str], baseline: str = BEST_TEACHER
) -> list[str]:
    """Names of the models that the others are compared with.

    teachers: references in the recipes of the runs. Where none was measured, what is a teacher by name or URI counts.
    baseline: BEST_TEACHER, or the name of one model. Raises ConfigError for a name that has no result.
    """
    references = {result.model: result.reference or result.model for result in results}
    if baseline != BEST_TEACHER:
        if baseline not in references:
            raise ConfigError(unknown("baseline", baseline, [BEST_TEACHER, *references]))
        return [baseline]
    names = {teacher_name(teacher) for teacher in teachers}
    measured = [
        model for model, reference in references.items() if teacher_name(reference) in names or model in names
    ]
    return measured or [model for model, reference in references.items() if _is_teacher(reference)]


def teacher_name(reference: str) -> str:
    """The short name of a teacher, as in metrics; any other name is itself."""
    try:
        return short_name(reference)
    except ConfigError:  # a name in results of other tools need not be a reference of ours
        return reference


def _is_teacher(reference: str) -> bool:
    base = reference.partition("?")[0]
    scheme, colon, _ = base.partition(":")
    return base in TEACHERS or (bool(colon) and scheme in SCHEMES)
