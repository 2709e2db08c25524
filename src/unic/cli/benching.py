"""bench: what a step of a recipe costs on this machine."""

from dataclasses import dataclass, fields
from pathlib import Path
from typing import TYPE_CHECKING

from unic.cli.options import Common, parse, process_group
from unic.core.errors import ConfigError
from unic.core.plugins import unknown

if TYPE_CHECKING:
    from unic.train.recipe import Recipe


def bench(words: list[str]) -> int:
    """Measure a training step here, plain and fast: unic bench --recipe RECIPE --batch 32 --out FILE.json

    Exit code 1 when plain and fast disagree.
    """
    from rich.console import Console

    from unic.core import distributed
    from unic.core.files import write_json
    from unic.tools.bench.measure import BenchOptions, measure
    from unic.tools.bench.print_bench import print_measured

    options = parse(_options(), words, "bench")
    recipe = _recipe(options.recipe)
    choices = BenchOptions(**{field.name: getattr(options, field.name) for field in fields(BenchOptions)})
    if options.out and not options.out.absolute().parent.is_dir():
        raise FileNotFoundError(f"{options.out.parent}: no such folder; make it, or give another --out")
    with process_group(options.device) as device:
        if distributed.world_size() > 1:
            raise ConfigError(
                f"unic bench measures one process, got {distributed.world_size()}; start it alone"
            )
        found = {"recipe": options.recipe, **measure(recipe, choices, device=device)}
    print_measured(found, Console())
    if options.out:
        write_json(options.out, found)
    return int(found["ratio"] is None)


def _recipe(name: str) -> "Recipe":
    """By its name, or from the config.json of a run."""
    from unic.core.config import from_dict, read_json
    from unic.recipes import RECIPES
    from unic.train.recipe import Recipe

    if name in RECIPES:
        return RECIPES[name]()
    path = Path(name)
    if path.suffix != ".json":
        raise ConfigError(unknown("recipe", name, RECIPES))
    if not path.is_file():
        raise FileNotFoundError(f"{path}: no such file; wanted the name of a recipe, or a run's config.json")
    return from_dict(Recipe, read_json(path))


def _options() -> type:
    from unic.tools.bench.measure import BenchOptions

    @dataclass(frozen=True, kw_only=True)
    class Options(BenchOptions, Common):
        recipe: str = "unic_vitb16"
        """Name of a recipe, or the config.json of a run."""
        out: Path | None = None
        """JSON file for the figures, with machine, versions and commit."""

    return Options
