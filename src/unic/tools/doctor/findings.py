"""What is worth saying about teachers: each finding is what was seen, why it matters, and what to do.

A warning is something that is probably wrong; a note is something to know that may well be meant.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from unic.tools.doctor.features import TeacherFeatures
from unic.tools.doctor.metrics import LARGEST_DIMENSIONS, PairMetrics, TeacherMetrics
from unic.tools.doctor.normalisation import Normalisation, Published, Trial, better_fit

FEW_IMAGES = 100
"""With fewer, CKA of unrelated features is high (about 1 / (1 + images / width)) and a rank low."""
SAME_CKA = 0.98
OUTLIERS = 0.01
"""Share of outlier tokens. DINOv2-g without registers has about 0.02 (Darcet et al. 2024)."""
CONCENTRATED = 0.5
"""Part of the mean squared length in three dimensions."""
DEAD = 0.1
EXPLODING = 1.2
"""How many times the loss with a floor the loss without one is."""
EXPLODED = 2.0
"""Loss at first; that of normally distributed features is about 0.7."""
COLLAPSED_RANK = 2.0


@dataclass(frozen=True, kw_only=True)
class TeacherFacts:
    """A teacher as it is set up: what it applies to pixels, and what is published about its weights."""

    name: str
    declared: Normalisation
    published: Published
    image_size: int
    grid: tuple[int, int]
    has_attention: bool


@dataclass(frozen=True, kw_only=True)
class Finding:
    teachers: list[str]
    kind: str
    level: Literal["warning", "note"]
    message: str


def find(
    facts: Sequence[TeacherFacts],
    rows: Sequence[TeacherMetrics],
    pairs: Sequence[PairMetrics],
    trials: Mapping[str, list[Trial]],
    seen: Mapping[str, TeacherFeatures],
    paths: Sequence[str],
    unreadable: Sequence[str],
) -> list[Finding]:
    """All findings, warnings first. paths: of the images that were seen, in the order of the features."""
    found: list[Finding] = []
    for teacher in facts:
        found += _not_finite(teacher.name, seen[teacher.name], paths)
        found += _normalisation(teacher, trials[teacher.name])
        own = [row for row in rows if row.name == teacher.name]
        found += _collapsed([row for row in own if _is_collapsed(row)])
        # What follows from a collapse needs no sentence of its own.
        sound = [row for row in own if not _is_collapsed(row)]
        found += _dead_dimensions(sound, len(paths))
        found += _concentrated(sound)
        # The cells of a CNN's map differ that much by nature: much of a picture excites few of its channels.
        found += _outliers(sound) if teacher.has_attention else ()
    found += _duplicates(pairs, len(paths))
    found += _saved_by_floor(rows)
    found += _image_sizes(facts)
    found += _grids(facts)
    found += _images(len(paths), unreadable)
    return sorted(found, key=lambda finding: finding.level == "note")


def _not_finite(name: str, seen: TeacherFeatures, paths: Sequence[str]) -> Iterator[Finding]:
    bad = (~seen.finite).nonzero().flatten().tolist()
    if bad:
        yield _warning(
            name, "not finite",
            f"{name} gives features that are infinite or not a number for {len(bad)} of {len(paths)} images, first "
            f"for {paths[bad[0]]}; one such image stops a run, so check its weights and that image. All other numbers "
            "of it leave these images out.",
        )  # fmt: skip


def _normalisation(facts: TeacherFacts, trials: Sequence[Trial]) -> Iterator[Finding]:
    own, known = facts.declared, facts.published.normalisation
    if known is not None and not known.is_near(own):
        tried = [trial for trial in trials if trial.normalisation.is_near(known)]
        yield _warning(
            facts.name, "normalisation",
            f"{facts.name} normalises pixels by {own.text()}, but its weights are published with {known.text()}"
            f"{_change(tried[0]) if tried else ''}; what it sees is not what it was trained on, so set mean and std in "
            "its TeacherSpec to those.",
        )  # fmt: skip
    elif better := better_fit(trials):
        yield _warning(
            facts.name, "normalisation",
            f"{facts.name} normalises pixels by {own.text()}, but with {better.normalisation.text()} "
            f"({better.convention}) its first BatchNorm meets what it remembers of its training far better (misfit "
            f"{better.misfit:.2f} instead of {trials[0].misfit:.2f}){_change(better)}; look up with which its weights "
            "were trained, and set mean and std in its TeacherSpec, or name the weights' own timm model after ?model=.",
        )  # fmt: skip


def _change(trial: Trial) -> str:
    if trial.cosine is None:
        return ""
    return f", and its features differ {how_much(trial.cosine)} (cosine {trial.cosine:.2f})"


def how_much(cosine: float) -> str:
    """Of standardised features under another normalisation, in a word."""
    return "little" if cosine > 0.9 else "much" if cosine < 0.6 else "somewhat"


def _is_collapsed(row: TeacherMetrics) -> bool:
    """Whether features that could spread do not. Of a few rows or dimensions nothing can be said."""
    rank, limit = row.effective_rank, row.rank_limit
    return rank is not None and limit is not None and limit > 4 and rank < COLLAPSED_RANK


def _collapsed(rows: Sequence[TeacherMetrics]) -> Iterator[Finding]:
    if not rows:
        return
    rank = max(row.effective_rank or 0.0 for row in rows)
    how = "the same for all images" if rank == 0 else f"nearly on one line (effective rank {rank:.1f})"
    off = f", or switch them off with --loss.{rows[0].token} False" if len(rows) == 1 else ""
    yield _warning(
        rows[0].name, "collapsed",
        f"{_capital(_tokens(rows))} are {how}; there is nothing to learn from them, so check the weights, ?layer= and "
        f"?cls= of this teacher{off}.",
    )  # fmt: skip


def _dead_dimensions(rows: Sequence[TeacherMetrics], num_images: int) -> Iterator[Finding]:
    """Their std is near 0, so that what is divided by it outweighs all else as soon as an image moves it."""
    exploded = [row for row in rows if (row.expected_loss or 0) > EXPLODED]
    dead = [row for row in rows if (row.dead_share or 0) > DEAD] if num_images >= FEW_IMAGES else []
    if exploded:
        loss = max(row.expected_loss or 0 for row in exploded)
        yield _warning(
            exploded[0].name, "dead dimensions",
            f"{_share(exploded)} hardly vary, and the loss begins at {loss:.3g} instead of about 0.7 although "
            "statistics.std_floor holds their std up: the floor is a part of the median std, which is itself near 0, "
            "so give this teacher larger images (?image_size=), another ?layer=, or more images of more kinds.",
        )  # fmt: skip
    elif dead:
        yield _warning(
            dead[0].name, "dead dimensions",
            f"{_share(dead)} hardly vary on these images: the student learns little from them, and without "
            "statistics.std_floor (0.05 by default) they can outweigh all others, so keep it, and see whether larger "
            "images (?image_size=) wake them.",
        )  # fmt: skip


def _saved_by_floor(rows: Sequence[TeacherMetrics]) -> Iterator[Finding]:
    """One note about all teachers whose loss would explode without std_floor, by the worse token of each."""
    worst: dict[str, TeacherMetrics] = {}
    for row in rows:
        bare, loss = row.expected_loss_without_floor, row.expected_loss
        if bare is None or loss is None or bare <= EXPLODING * loss or loss > EXPLODED:
            continue
        if row.name not in worst or bare > (worst[row.name].expected_loss_without_floor or 0):
            worst[row.name] = row
    if worst:
        listed = ", ".join(
            f"{name} at {row.expected_loss_without_floor:.3g} instead of {row.expected_loss:.2f}"
            for name, row in worst.items()
        )
        batch = next(iter(worst.values())).first_batch
        yield Finding(
            teachers=list(worst), kind="dead dimensions", level="note",
            message=f"Some dimensions hardly vary in a batch of {batch} images: with the statistics of one such batch "
            f"and no floor under the std, as published, the loss begins far too high ({listed}); keep "
            "statistics.std_floor and statistics.warmup_batches at their defaults (0.05 and 8).",
        )  # fmt: skip


def _outliers(rows: Sequence[TeacherMetrics]) -> Iterator[Finding]:
    for row in rows:
        if row.token == "patches" and (row.outlier_share or 0) > OUTLIERS:
            yield _warning(
                row.name, "outliers",
                f"{row.outlier_share:.1%} of {_tokens([row])} are far longer than the others; such tokens hold notes "
                "about the whole image in places where it is plain, and the student would copy them, so prefer a "
                "version of this teacher with registers, or an earlier ?layer=.",
            )  # fmt: skip


def _concentrated(rows: Sequence[TeacherMetrics]) -> Iterator[Finding]:
    peaked = [row for row in rows if (row.largest_share or 0) > CONCENTRATED]
    if peaked:
        share = max(row.largest_share or 0 for row in peaked)
        yield _warning(
            peaked[0].name, "concentrated",
            f"{LARGEST_DIMENSIONS} dimensions hold {share:.0%} of the squared length of {_tokens(peaked)}; without "
            "standardisation the loss would see little else, so keep statistics.kind at ema.",
        )  # fmt: skip


def _image_sizes(facts: Sequence[TeacherFacts]) -> Iterator[Finding]:
    other = [teacher for teacher in facts if teacher.published.image_size not in (None, teacher.image_size)]
    if other:
        listed = ", ".join(
            f"{teacher.name} at {teacher.image_size} px instead of {teacher.published.image_size}"
            for teacher in other
        )
        yield Finding(
            teachers=[teacher.name for teacher in other], kind="image size", level="note",
            message=f"Images are not of the size that the weights are for: {listed}; features change with the size of "
            "things in the picture, so take the weights' own (no ?image_size=) unless time or the student's grid "
            "speaks against it.",
        )  # fmt: skip


def _duplicates(pairs: Sequence[PairMetrics], num_images: int) -> Iterator[Finding]:
    if num_images < FEW_IMAGES:
        return
    for cls, patches in zip(pairs[::2], pairs[1::2], strict=True):
        if min(cls.cka, patches.cka) > SAME_CKA:
            yield Finding(
                teachers=[cls.a, cls.b], kind="duplicate", level="warning",
                message=f"{cls.a} and {cls.b} say almost the same (CKA {cls.cka:.3f} of CLS tokens, "
                f"{patches.cka:.3f} of patches); two of a kind count twice in the loss, cost twice the time and add "
                "nothing, so leave one out.",
            )  # fmt: skip


def _grids(facts: Sequence[TeacherFacts]) -> Iterator[Finding]:
    grids = {f"{teacher.grid[0]} x {teacher.grid[1]}" for teacher in facts}
    if len(grids) > 1:
        listed = ", ".join(f"{teacher.name} {teacher.grid[0]} x {teacher.grid[1]}" for teacher in facts)
        yield Finding(
            teachers=[teacher.name for teacher in facts], kind="grid", level="note",
            message=f"The patches of the teachers lie on different grids ({listed}); all are resampled to the "
            "student's, and a coarse one stretched over a fine one teaches blur, so choose image sizes that bring them "
            "near the student's image_size / patch_size.",
        )  # fmt: skip


def _images(num_images: int, unreadable: Sequence[str]) -> Iterator[Finding]:
    if unreadable:
        total = num_images + len(unreadable)
        yield Finding(
            teachers=[], kind="unreadable images", level="note",
            message=f"{len(unreadable)} of {total} images looked at cannot be read and are left out, first "
            f"{unreadable[0]}; a run stops where more than data.max_bad (1 %) are like that, so repair or remove them.",
        )  # fmt: skip
    if num_images < FEW_IMAGES:
        yield Finding(
            teachers=[], kind="few images", level="note",
            message=f"{num_images} {'image is' if num_images == 1 else 'images are'} few: ranks are at most "
            f"{max(num_images - 1, 0)} for CLS tokens, and CKA is high between any two teachers, so duplicates are not "
            f"looked for; give {FEW_IMAGES} images or more.",
        )  # fmt: skip


def _tokens(rows: Sequence[TeacherMetrics]) -> str:
    """Of one teacher, in words: "the CLS tokens and patches of <teacher>"."""
    names = {"cls": "CLS tokens", "patches": "patches"}
    return f"the {' and '.join(names[row.token] for row in rows)} of {rows[0].name}"


def _share(rows: Sequence[TeacherMetrics]) -> str:
    return f"{max(row.dead_share or 0 for row in rows):.1%} of the dimensions of {_tokens(rows)}"


def _capital(text: str) -> str:
    return text[0].upper() + text[1:]


def _warning(name: str, kind: str, message: str) -> Finding:
    return Finding(teachers=[name], kind=kind, level="warning", message=message)
