"""demo, distill, recipes: from a recipe to a run."""

import dataclasses
import logging
import shlex
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from unic.cli.options import Common, expect_list, parse, process_group
from unic.core.errors import EXIT_TERMINATED, ConfigError
from unic.core.plugins import unknown

if TYPE_CHECKING:
    from unic.train.recipe import Recipe

log = logging.getLogger("unic")


def demo(words: list[str]) -> int:
    """Distil two real teachers into a small student on this machine, in about two minutes."""
    from unic.demo import run_demo

    options = parse(_DemoOptions, words, "demo")
    with process_group(options.device) as device:
        return 0 if run_demo(options.out, device) else EXIT_TERMINATED


def distill(words: list[str]) -> int:
    """Carry out a recipe: unic distill RECIPE --data.root DIR --out RUN; or repeat one: unic distill RUN/config.json"""
    from unic.kernels.malloc import disable_trim
    from unic.train.loop import train

    name, recipe, words = _take_recipe(words)
    options = parse(_distill_options(recipe), words, f"distill {name}")
    if options.dry_run:
        print(_estimate(options.recipe))
        return 0
    out = options.out or Path("runs") / name
    with process_group(options.device) as device:
        if device.type == "cpu" and options.recipe.speed.kernels == "fast":
            disable_trim()
        if not train(_with_absolute_roots(options.recipe), out, device):
            log.warning("stopped; the same command goes on from here")
            return EXIT_TERMINATED
        log.info("done; evaluate it with: unic evaluate %s --data-root DIR", shlex.quote(str(out)))
    return 0


def recipes(words: list[str]) -> int:
    """List the recipes: unic recipes list."""
    from unic.recipes import RECIPES

    expect_list(words, "recipes")
    for name, recipe in RECIPES.items():
        print(f"{name:16} {(recipe.__doc__ or '').splitlines()[0]}")
    return 0


@dataclass(frozen=True, kw_only=True)
class _DemoOptions(Common):
    out: Path = Path("runs/demo")
    """Folder for the images, the run and its results."""


def _distill_options(defaults: "Recipe") -> type:
    """The options of `distill`: every field of the recipe, with the recipe's values as defaults."""
    import tyro

    @dataclass(frozen=True, kw_only=True)
    class Options(Common):
        recipe: Annotated[tyro.conf.FlagConversionOff[type(defaults)], tyro.conf.arg(name="")] = defaults  # type: ignore[valid-type]
        out: Path | None = None
        """Run folder; a run of the same configuration in it is taken up again. None: runs/RECIPE."""
        dry_run: bool = False
        """Only count: parameters, FLOP an image, memory, steps, and files of teachers that have to be fetched."""

    return Options


def _estimate(recipe: "Recipe") -> str:
    from unic.data.sources import read_sources
    from unic.teachers.live_teachers import check_names
    from unic.tools.estimate import describe, estimate

    check_names(recipe.teachers)
    if recipe.start and not Path(recipe.start).expanduser().exists():
        log.warning("start %s is not there (yet)", recipe.start)
    return describe(estimate(recipe, len(read_sources(recipe.data.root)) if recipe.data.root else None))


def _with_absolute_roots(recipe: "Recipe") -> "Recipe":
    """The same images, and the same start, from any working directory, and however a folder was spelled."""
    data = recipe.data
    roots, val_roots = (
        tuple(str(Path(root).expanduser().absolute()) for root in paths)
        for paths in (data.root, data.val_root)
    )
    return dataclasses.replace(
        recipe,
        start=str(Path(recipe.start).expanduser().absolute()) if recipe.start else None,
        data=dataclasses.replace(data, root=roots, val_root=val_roots),
    )


def _take_recipe(words: list[str]) -> tuple[str, "Recipe", list[str]]:
    """The first word as a recipe: a name, or the config.json of a run (called RUN-repeat)."""
    from unic.core.config import from_dict, read_json
    from unic.recipes import RECIPES
    from unic.train.recipe import Recipe

    if words and words[0] in ("-h", "--help"):
        words = ["unic_vitb16", *words]  # every recipe has the same options
    if not words or words[0].startswith("-"):
        raise ConfigError(
            f"which recipe? unic distill RECIPE; known: {', '.join(RECIPES)}, or RUN/config.json"
        )
    name, *rest = words
    if name in RECIPES:
        return name, RECIPES[name](), rest
    path = Path(name)
    if path.is_dir():
        path = path / "config.json"
    if path.suffix == ".json":
        if not path.is_file():
            raise FileNotFoundError(f"{path}: no such file")
        return f"{path.resolve().parent.name}-repeat", from_dict(Recipe, read_json(path)), rest
    raise ConfigError(unknown("recipe", name, RECIPES))
