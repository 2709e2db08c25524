"""What is said about which numbers, and what is not."""

import dataclasses

import pytest
import torch
from test_metrics import draw, seen

from unic.tools.doctor.findings import Finding, TeacherFacts, find
from unic.tools.doctor.metrics import PairMetrics, TeacherMetrics
from unic.tools.doctor.normalisation import CONVENTIONS, Published, Trial

PLAIN = TeacherMetrics(
    name="a", token="cls", norm=10.0, effective_rank=200.0, rank_limit=499, dead_share=0.0, outlier_share=0.0,
    largest_share=0.02, images_per_second=10.0, memory_mb=10.0, parameters_mb=5.0, expected_loss=0.68,
    expected_loss_without_floor=0.69, first_batch=32,
)  # fmt: skip
UNKNOWN = Published(None, None)
OWN = Trial(convention="own", normalisation=CONVENTIONS["0.5/0.5"], cosine=1.0, misfit=0.02)
OTHER = Trial(convention="ImageNet", normalisation=CONVENTIONS["ImageNet"], cosine=0.4, misfit=0.5)


def facts(
    name: str = "a",
    *,
    grid: int = 7,
    size: int = 224,
    published: Published = UNKNOWN,
    has_attention: bool = True,
) -> TeacherFacts:
    return TeacherFacts(
        name=name,
        declared=OWN.normalisation,
        published=published,
        image_size=size,
        grid=(grid, grid),
        has_attention=has_attention,
    )


def findings(
    *rows: TeacherMetrics, teachers=None, pairs=(), trials=(OWN, OTHER), images=500, bad=(), finite=None
):
    teachers = teachers or [facts()]
    features = {teacher.name: seen(draw(0, 4, 3), draw(1, 4, 2, 3), finite=finite) for teacher in teachers}
    return find(
        teachers, rows, pairs, {teacher.name: list(trials) for teacher in teachers}, features,
        [f"{i}.png" for i in range(images)], bad,
    )  # fmt: skip


def kinds(found: list[Finding]) -> list[tuple[str, str]]:
    return [(finding.level, finding.kind) for finding in found]


def test_about_a_plain_teacher_nothing_is_said():
    assert findings(PLAIN, dataclasses.replace(PLAIN, token="patches")) == []


@pytest.mark.parametrize(
    ("change", "level", "kind", "words"),
    [
        ({"effective_rank": 0.0}, "warning", "collapsed", "The patches of a are the same for all images"),
        ({"effective_rank": 1.4}, "warning", "collapsed", "nearly on one line"),
        ({"dead_share": 0.3}, "warning", "dead dimensions", "30.0% of the dimensions of the patches of a"),
        ({"expected_loss_without_floor": 150.0}, "note", "dead dimensions", "a at 150 instead of 0.68"),
        ({"expected_loss": 88.0, "dead_share": 0.4}, "warning", "dead dimensions", "begins at 88"),
        ({"outlier_share": 0.03}, "warning", "outliers", "3.0% of the patches of a"),
        ({"largest_share": 0.8}, "warning", "concentrated", "3 dimensions hold 80%"),
    ],
)
def test_one_thing_that_is_wrong_is_said_once(change: dict, level: str, kind: str, words: str):
    found = findings(PLAIN, dataclasses.replace(PLAIN, token="patches", **change))
    assert kinds(found) == [(level, kind)]
    assert found[0].teachers == ["a"]
    assert words in found[0].message


def test_cls_tokens_and_patches_share_a_sentence():
    rows = [dataclasses.replace(PLAIN, token=token, dead_share=0.3) for token in ("cls", "patches")]
    (found,) = findings(*rows)
    assert "the CLS tokens and patches of a" in found.message


def test_long_cells_of_a_cnn_are_nothing_to_speak_of():
    row = dataclasses.replace(PLAIN, token="patches", outlier_share=0.1)
    assert findings(row, teachers=[facts(has_attention=False)]) == []


def test_what_the_floor_takes_care_of_is_one_note_for_all_teachers():
    rows = [
        dataclasses.replace(PLAIN, name=name, expected_loss_without_floor=loss)
        for name, loss in (("a", 9.0), ("b", 80.0))
    ]
    (found,) = findings(*rows, teachers=[facts("a"), facts("b")])
    assert found.teachers == ["a", "b"]
    assert "a at 9 instead of 0.68, b at 80 instead of 0.68" in found.message


def test_few_dimensions_are_no_collapse():
    assert findings(dataclasses.replace(PLAIN, effective_rank=1.5, rank_limit=3)) == []


def test_published_facts_are_compared_with_what_is_applied():
    right, wrong = Published(OWN.normalisation, 224), Published(OTHER.normalisation, 224)
    assert findings(PLAIN, teachers=[facts(published=right)]) == []
    (found,) = findings(PLAIN, teachers=[facts(published=wrong)])
    assert kinds([found]) == [("warning", "normalisation")]
    assert "(0.485, 0.456, 0.406)" in found.message and "cosine 0.40" in found.message


def test_a_better_fit_of_the_batchnorm_is_said_and_a_slightly_better_one_is_not():
    def trials(own: float | None, other: float | None) -> list[Trial]:
        return [dataclasses.replace(OWN, misfit=own), dataclasses.replace(OTHER, misfit=other)]

    (found,) = findings(PLAIN, trials=trials(0.5, 0.02))
    assert kinds([found]) == [("warning", "normalisation")]
    assert "(ImageNet)" in found.message and "misfit 0.02 instead of 0.50" in found.message
    for plain in ((0.5, 0.3), (0.09, 0.0), (None, None), (0.0, 0.5)):
        assert findings(PLAIN, trials=trials(*plain)) == []


def pairs(cls: float, patches: float) -> list[PairMetrics]:
    return [
        PairMetrics(a="a", b="b", token=token, cka=cka, neighbours=0.5)
        for token, cka in (("cls", cls), ("patches", patches))
    ]


def test_duplicates_are_alike_in_cls_tokens_and_patches():
    teachers = [facts("a"), facts("b")]
    (found,) = findings(PLAIN, teachers=teachers, pairs=pairs(0.99, 0.985))
    assert kinds([found]) == [("warning", "duplicate")]
    assert found.teachers == ["a", "b"]
    assert findings(PLAIN, teachers=teachers, pairs=pairs(0.99, 0.9)) == []
    assert findings(PLAIN, teachers=teachers, pairs=pairs(0.9, 0.99)) == []


def test_with_few_images_that_is_said_instead_of_calling_teachers_duplicates():
    found = findings(PLAIN, teachers=[facts("a"), facts("b")], pairs=pairs(1.0, 1.0), images=50)
    assert kinds(found) == [("note", "few images")]


def test_sizes_and_grids_are_notes_that_name_every_teacher():
    teachers = [facts("a", size=64, grid=2, published=Published(None, 224)), facts("b", grid=7)]
    size, grid = findings(PLAIN, teachers=teachers)
    assert kinds([size, grid]) == [("note", "image size"), ("note", "grid")]
    assert "a at 64 px instead of 224" in size.message and size.teachers == ["a"]
    assert "a 2 x 2, b 7 x 7" in grid.message and grid.teachers == ["a", "b"]


def test_unreadable_images_are_counted_and_the_first_is_named():
    (found,) = findings(PLAIN, bad=["/x.png", "/y.png"])
    assert "2 of 502 images" in found.message and "/x.png" in found.message


def test_features_that_are_not_finite_name_the_teacher_and_the_image_and_come_first():
    found = findings(
        PLAIN, teachers=[facts(published=Published(None, 64))], finite=torch.tensor([True, True, False, True])
    )
    assert kinds(found) == [("warning", "not finite"), ("note", "image size")]
    assert "a gives features" in found[0].message and "2.png" in found[0].message
