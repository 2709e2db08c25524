"""Configurations as JSON and back: strict, and helpful about mistakes."""

import dataclasses
import json
import re
import string
import typing
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from unic.core.dataclass_json import differences, from_dict, read_json, to_dict
from unic.core.errors import ConfigError
from unic.recipes import RECIPES, debug
from unic.train.recipe import Recipe


def leaves(values: dict[str, Any], parents: tuple[str, ...] = ()) -> Iterator[tuple[str, ...]]:
    for name, value in values.items():
        yield (*parents, name)
        if isinstance(value, dict):
            yield from leaves(value, (*parents, name))


def with_change(
    values: Any, path: tuple[str, ...], change: typing.Callable[[dict, str], None]
) -> dict[str, Any]:
    copy = json.loads(json.dumps(values))
    part = copy
    for name in path[:-1]:
        part = part[name]
    change(part, path[-1])
    return copy


DEBUG = to_dict(RECIPES["debug"]())
FIELDS = list(leaves(DEBUG))
NAMES = ("teachers", "seed", "optim", "lr", "log", "every")


@pytest.mark.parametrize("name", list(RECIPES))
def test_a_recipe_comes_back_from_json_as_it_was(name: str):
    recipe = RECIPES[name]()
    assert from_dict(Recipe, json.loads(json.dumps(to_dict(recipe)))) == recipe


def test_fields_left_out_take_their_defaults():
    assert from_dict(Recipe, {"teachers": ["a"]}) == Recipe(teachers=("a",))
    assert from_dict(Recipe, {"teachers": ["a"], "optim": {"lr": 1}}).optim.lr == 1.0


def test_a_field_without_a_default_must_be_there():
    with pytest.raises(ConfigError, match="teachers: missing"):
        from_dict(Recipe, {"seed": 1})


def typos(name: str) -> set[str]:
    """All names one deletion, exchange of neighbours, doubling or wrong letter away."""
    found = {name[:i] + name[i + 1 :] for i in range(len(name))}
    found |= {name[:i] + name[i + 1] + name[i] + name[i + 2 :] for i in range(len(name) - 1)}
    found |= {name[:i] + letter + name[i:] for i in range(len(name)) for letter in (name[i], "x")}
    found |= {
        name[:i] + letter + name[i + 1 :] for i in range(len(name)) for letter in (*string.digits[:1], "q")
    }
    return found - {""}


def test_a_typo_in_any_field_is_refused_and_the_right_field_suggested():
    num_typos = num_suggested = 0
    for path in FIELDS:
        siblings = DEBUG
        for name in path[:-1]:
            siblings = siblings[name]
        for typo in typos(path[-1]) - siblings.keys():
            wrong = with_change(
                DEBUG, path, lambda part, name, typo=typo: part.update({typo: part.pop(name)})
            )
            with pytest.raises(ConfigError) as refused:
                from_dict(Recipe, wrong)
            suggestions = re.search(r"did you mean (.*)\?", str(refused.value))
            assert repr(".".join((*path[:-1], typo))) in str(refused.value)
            num_typos += 1
            num_suggested += bool(suggestions) and ".".join(path) in suggestions[1].split(" or ")
    assert num_typos > 1500
    assert num_suggested >= 0.99 * num_typos, f"{num_suggested} of {num_typos}"


@pytest.mark.parametrize("path", FIELDS, ids=".".join)
def test_a_value_of_a_wrong_type_is_refused_by_the_name_of_its_field(path: tuple[str, ...]):
    for wrong in ({"a": 1}, "no such word", [[]], [None, None], True if path[-1] != "cls" else 3):
        values = with_change(DEBUG, path, lambda part, name, wrong=wrong: part.update({name: wrong}))
        part: Any = DEBUG
        for name in path:
            part = part[name]
        if type(wrong) is type(part) or (isinstance(wrong, str) and path[-1] in ("model", "start")):
            continue
        with pytest.raises(ConfigError) as refused:
            from_dict(Recipe, values)
        # An object in place of a value names the field that the object has.
        assert ".".join(path) in str(refused.value), str(refused.value)


def test_whole_numbers_are_fractions_but_not_the_other_way_round_and_truth_is_no_number():
    @dataclass(frozen=True, kw_only=True)
    class Config:
        number: int = 0
        fraction: float = 0.0
        pair: tuple[float, float] = (0.0, 0.0)
        many: tuple[int, ...] | None = None
        word: Literal["a", "b"] = "a"

    assert from_dict(Config, {"fraction": 1, "pair": [1, 2.5], "many": [1, 2, 3], "word": "b"}) == Config(
        fraction=1.0, pair=(1.0, 2.5), many=(1, 2, 3), word="b"
    )
    assert from_dict(Config, {"many": None}).many is None
    for wrong, said in (
        ({"number": 1.0}, "number: expected int, got 1.0"),
        ({"number": True}, "number: expected int, got True"),
        ({"fraction": False}, "fraction: expected float, got False"),
        ({"fraction": "1"}, "fraction: expected float, got '1'"),
        ({"fraction": None}, "fraction: expected float, got None"),
        ({"pair": [1.0]}, "pair: expected"),
        ({"pair": [1.0, "x"]}, r"pair\[1\]: expected float, got 'x'"),
        ({"many": [1, 2.0]}, r"many\[1\]: expected int, got 2.0"),
        ({"word": "c"}, "word: expected one of a, b, got 'c'"),
        ({"word": ["a"]}, "word: expected one of a, b"),
        (["number"], "Config: expected an object"),
    ):
        with pytest.raises(ConfigError, match=said):
            from_dict(Config, wrong)


@settings(max_examples=200, deadline=None)
@given(
    st.recursive(
        st.none() | st.booleans() | st.floats() | st.text(max_size=5),
        lambda inner: (
            st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(NAMES), inner, max_size=3)
        ),
    )
)
def test_any_json_is_a_recipe_or_a_config_error(values: Any):
    try:
        assert isinstance(from_dict(Recipe, values), Recipe)
    except ConfigError as error:
        assert str(error)


def test_json_that_is_damaged_or_missing_is_explained(tmp_path: Path):
    path = tmp_path / "config.json"
    whole = json.dumps(DEBUG, indent=1)
    for damaged in (whole[: len(whole) // 2], whole.replace(",", "", 1), "", "nothing"):
        path.write_text(damaged)
        with pytest.raises(
            ConfigError, match=rf"{re.escape(str(path))}: not a JSON file \(.*line \d+ column"
        ):
            read_json(path)
    path.write_bytes(b'{"seed": "\xff"}')
    with pytest.raises(ConfigError, match="not a JSON file"):
        read_json(path)
    with pytest.raises(FileNotFoundError):
        read_json(tmp_path / "none.json")


@pytest.mark.parametrize("path", [p for p in FIELDS if not isinstance(DEBUG.get(p[-1]), dict)], ids=".".join)
def test_every_difference_is_one_line_with_both_values(path: tuple[str, ...]):
    other = with_change(DEBUG, path, lambda part, name: part.update({name: "other"}))
    (line,) = differences(DEBUG, other)
    assert line.startswith(f"{'.'.join(path)}: ") and line.endswith('there, "other" asked for')
    assert not list(differences(DEBUG, json.loads(json.dumps(DEBUG))))


def test_every_dataclass_of_a_recipe_is_frozen_and_takes_keywords_only():
    def visit(kind: type) -> None:
        assert kind.__dataclass_params__.frozen, kind
        assert all(field.kw_only for field in dataclasses.fields(kind)), kind
        for field in typing.get_type_hints(kind).values():
            if dataclasses.is_dataclass(field):
                visit(typing.cast(type, field))

    visit(Recipe)


def test_values_of_an_earlier_version_are_read_as_they_are_spelled_now():
    stored = to_dict(debug())
    assert stored["speed"]["kernels"] == "fast" and stored["data"]["views"]["pixels"] == "exact"
    stored["speed"]["kernels"] = stored["data"]["views"]["pixels"] = "plain"
    recipe = from_dict(Recipe, stored)
    assert recipe.speed.kernels == "exact" and recipe.data.views.pixels == "exact"
