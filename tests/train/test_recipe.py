"""What a recipe accepts, and which parts of it decide a result."""

from dataclasses import fields

import pytest

from unic.core.errors import ConfigError
from unic.recipes import RECIPES
from unic.train.recipe import FREE_TO_CHANGE, LogConfig, Recipe, SpeedConfig

# A new field belongs on one of these lists on purpose: may it differ when a run is taken up again?
DECIDES_THE_RESULT = {"teachers", "student", "ladder", "loss", "statistics", "data", "optim", "seed", "start"}


def test_every_field_is_either_free_to_change_or_decides_the_result():
    assert {"speed", "log", "data.max_bad"} == FREE_TO_CHANGE
    whole = FREE_TO_CHANGE - {"data.max_bad"}  # decides whether a run goes on, not what comes out
    assert {field.name for field in fields(Recipe)} == DECIDES_THE_RESULT | whole


@pytest.mark.parametrize("name", list(RECIPES))
def test_every_recipe_can_be_built_and_carries_its_source_or_cost(name: str):
    assert RECIPES[name]().teachers
    assert RECIPES[name].__doc__


@pytest.mark.parametrize(
    ("kind", "bad", "expected"),
    [
        (LogConfig, {"keep": 1}, "the newest checkpoint may be damaged"),
        (LogConfig, {"every": 0}, "log.every"),
        (LogConfig, {"checkpoint_steps": 0}, "log.checkpoint_steps"),
        (LogConfig, {"checkpoint_minutes": -1.0}, "log.checkpoint_minutes"),
        (LogConfig, {"validate_every": 0.0}, "log.validate_every"),
        (LogConfig, {"fidelity_every": -1.0}, r"log\.fidelity_every must be above 0 epochs"),
        (LogConfig, {"fidelity_images": 0}, "log.fidelity_images at least 1"),
        (SpeedConfig, {"micro_batch": 0}, "speed.micro_batch"),
        (SpeedConfig, {"workers": -1}, "speed.workers"),
        (Recipe, {"teachers": ()}, "at least one teacher"),
    ],
)
def test_impossible_settings_are_refused_by_name(kind: type, bad: dict, expected: str):
    with pytest.raises(ConfigError, match=expected):
        kind(**bad)
