"""Carry out a recipe: unic distill RECIPE --data.root DIR --out RUN; or repeat one: unic distill RUN/config.json"""

import dataclasses
import logging
import shlex
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import tyro

from unic.cli.common import Common, parse, process_group
from unic.core.dataclass_json import from_dict, read_json
from unic.core.errors import EXIT_TERMINATED, ConfigError
from unic.core.registry import unknown
from unic.recipes import RECIPES
from unic.train.recipe import Recipe

log = logging.getLogger("unic")


@dataclass(frozen=True, kw_only=True)
class Options(Common):
    # Every field of the recipe is an option, without a prefix.
    recipe: Annotated[tyro.conf.FlagConversionOff[Recipe], tyro.conf.arg(name="")]
    out: Path | None = None
    """Run folder; a run of the same configuration in it is taken up again. None: runs/RECIPE."""
    dry_run: bool = False
    """Only count: parameters, FLOP an image, memory, steps, and files of teachers that have to be fetched."""


def run(words: list[str]) -> int:
    name, recipe, words = _take_recipe(words)
    options = parse(Options, words, f"distill {name}", default=Options(recipe=recipe))
    if options.dry_run:
        print(_estimate(options.recipe))
        return 0
    return distill(options.recipe, options.out or Path("runs") / name, options.device)


def distill(recipe: Recipe, out: Path, device_name: str) -> int:
    from unic.kernels.malloc import disable_trim
    from unic.train.loop import train

    with process_group(device_name) as device:
        if device.type == "cpu" and recipe.speed.kernels == "fast":
            disable_trim()
        if not train(_with_absolute_roots(recipe), out, device):
            log.warning("stopped; the same command goes on from here")
            return EXIT_TERMINATED
        log.info("done; evaluate it with: unic evaluate %s --data-root DIR", shlex.quote(str(out)))
    return 0


def _take_recipe(words: list[str]) -> tuple[str, Recipe, list[str]]:
    """The first word as a recipe: a name, or the config.json of a run (called RUN-repeat)."""
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


def _estimate(recipe: Recipe) -> str:
    from unic.data.sources import read_sources
    from unic.teachers.live_teachers import check_names
    from unic.tools.estimate import describe, estimate

    check_names(recipe.teachers)
    if recipe.start and not Path(recipe.start).expanduser().exists():
        log.warning("start %s is not there (yet)", recipe.start)
    return describe(estimate(recipe, len(read_sources(recipe.data.root)) if recipe.data.root else None))


def _with_absolute_roots(recipe: Recipe) -> Recipe:
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
