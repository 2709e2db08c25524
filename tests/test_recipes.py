"""Every recipe can be built without weights, says what it is, and matches what was published."""

import functools

import pytest

from unic.recipes import RECIPES, unic_vitl14, unic_vitl14_336
from unic.teachers import short_name
from unic.tools.estimate import Estimate, describe, estimate


@functools.cache
def counted(name: str) -> Estimate:
    return estimate(RECIPES[name](), None)


@pytest.mark.parametrize("name", list(RECIPES))
def test_a_recipe_begins_its_description_with_a_sentence_and_names_source_or_cost(name: str):
    lines = (RECIPES[name].__doc__ or "").splitlines()
    assert lines[0].endswith(".") and len(lines[0]) > 40
    assert name in ("demo", "debug") or any("Source:" in line or "Cost:" in line for line in lines)


@pytest.mark.parametrize("name", list(RECIPES))
def test_a_recipe_builds_without_weights_files_or_network(name: str):
    found = counted(name)
    assert all(teacher.flops for teacher in found.teachers)
    assert "not counted" not in describe(found)


@pytest.mark.parametrize(
    ("name", "gflop", "hours"),
    [("unic_vitb16", 330, 59), ("unic_vitl14", 1639, 295), ("unic_vitl14_336", 3808, 69)],
)
def test_the_cost_in_a_description_is_the_cost_that_is_counted(name: str, gflop: int, hours: int):
    """The cost model written down before the code: 329.5, 1,636 and 3,793 GFLOP; attention's backward recomputes."""
    found = counted(name)
    assert round(found.flops / 1e9) == gflop and round(found.h200_hours) == hours
    text = RECIPES[name].__doc__ or ""
    assert f"{gflop:,} GFLOP" in text and f"{hours} hours" in text
    expected = {"unic_vitb16": 329.5, "unic_vitl14": 1636, "unic_vitl14_336": 3793}[name]
    assert found.flops == pytest.approx(expected * 1e9, rel=0.01)


def test_the_large_recipe_at_336_pixels_can_take_over_everything_of_the_one_at_224():
    first, second = unic_vitl14(), unic_vitl14_336()
    assert second.start == "runs/unic_vitl14"
    assert [short_name(t) for t in second.teachers] == [short_name(t) for t in first.teachers]
    assert (second.ladder, second.student.model) == (first.ladder, first.student.model)
    assert second.statistics.std_floor == first.statistics.std_floor
    assert {second.student.image_size, second.data.views.image_size} == {336}


def test_the_large_student_and_ladder_have_the_size_of_the_published_file():
    """2.13 GiB for encoder and ladder with widths D and 4 D at 224 pixels."""
    found = counted("unic_vitl14")
    assert (found.encoder_parameters + found.ladder_parameters) * 4 / 2**30 == pytest.approx(2.13, abs=0.01)
