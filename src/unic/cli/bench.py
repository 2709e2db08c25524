"""Measure a training step here, exact and fast: unic bench --recipe RECIPE --batch 32 --out FILE.json

Exit code 1 when exact and fast disagree.
"""

from dataclasses import dataclass
from pathlib import Path

from rich.console import Console

from unic.cli.common import Common, parse, process_group
from unic.core.dataclass_json import from_dict, read_json
from unic.core.errors import ConfigError
from unic.core.files import write_json
from unic.core.registry import unknown
from unic.recipes import RECIPES
from unic.tools.bench.options import BenchOptions
from unic.train.recipe import Recipe


@dataclass(frozen=True, kw_only=True)
class Options(BenchOptions, Common):
    recipe: str = "unic_vitb16"
    """Name of a recipe, or the config.json of a run."""
    out: Path | None = None
    """JSON file for the figures, with machine, versions and commit."""


def run(words: list[str]) -> int:
    options = parse(Options, words, "bench")

    from unic.core import distributed
    from unic.tools.bench.measure import measure
    from unic.tools.bench.print_bench import print_measured

    recipe = _read_recipe(options.recipe)
    if options.out and not options.out.absolute().parent.is_dir():
        raise FileNotFoundError(f"{options.out.parent}: no such folder; make it, or give another --out")
    with process_group(options.device) as device:
        if distributed.world_size() > 1:
            raise ConfigError(
                f"unic bench measures one process, got {distributed.world_size()}; start it alone"
            )
        figures = {"recipe": options.recipe, **measure(recipe, options, device=device)}
    print_measured(figures, Console())
    if options.out:
        write_json(options.out, figures)
    return int(figures["ratio"] is None)


def _read_recipe(name: str) -> Recipe:
    """By its name, or from the config.json of a run."""
    if name in RECIPES:
        return RECIPES[name]()
    path = Path(name)
    if path.suffix != ".json":
        raise ConfigError(unknown("recipe", name, RECIPES))
    if not path.is_file():
        raise FileNotFoundError(f"{path}: no such file; wanted the name of a recipe, or a run's config.json")
    return from_dict(Recipe, read_json(path))
