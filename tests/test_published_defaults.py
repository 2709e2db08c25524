"""Every default that is published, or that results are compared by, stands in one file of literals.

A change there is a change of the protocol: say so in its version, and in docs/LOG.md.
"""

import json
from pathlib import Path

import pytest

from unic.core.dataclass_json import to_dict
from unic.evals.logreg import C_SPACE, SGD_SPACE
from unic.evals.registry import EVALUATIONS
from unic.recipes import RECIPES

PUBLISHED = json.loads(Path(__file__).with_name("published_defaults.json").read_text())


@pytest.mark.parametrize("name", RECIPES)
def test_a_recipe_has_its_published_values(name: str):
    assert to_dict(RECIPES[name]()) == PUBLISHED["recipes"][name]


@pytest.mark.parametrize("name", EVALUATIONS)
def test_an_evaluation_has_its_published_settings(name: str):
    assert to_dict(EVALUATIONS[name].settings) == PUBLISHED["evaluations"][name]


def test_the_linear_classifiers_search_where_the_reference_does():
    """UNIC's protocol: C from 1e-5 to 1e6; learning rate and decay of SGD."""
    spaces = {**C_SPACE, **SGD_SPACE}
    assert {name: list(limits) for name, limits in spaces.items()} == PUBLISHED["search spaces"]


def test_nothing_stands_in_the_file_that_is_gone():
    ours = {name for name in EVALUATIONS if EVALUATIONS[name].run.__module__.startswith("unic.")}
    assert set(PUBLISHED["recipes"]) == set(RECIPES) and set(PUBLISHED["evaluations"]) == ours
