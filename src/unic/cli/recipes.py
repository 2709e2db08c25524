"""List the recipes: unic recipes list."""

from unic.cli.common import run_action
from unic.recipes import RECIPES


def run(words: list[str]) -> int:
    return run_action("recipes", {"list": _list}, words, usage=__doc__ or "")


def _list(words: list[str]) -> int:
    for name, recipe in RECIPES.items():
        print(f"{name:16} {(recipe.__doc__ or '').splitlines()[0]}")
    return 0
