"""The command line: each verb reads its words, calls one function and says what came of it.

Exit codes: 0 done; 2 a mistake of the user's or of the surroundings (one sentence, no traceback); 143 stopped by a
signal, with a checkpoint.
"""

import contextlib
import dataclasses
import logging
import re
import shlex
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from unic.errors import EXIT_TERMINATED, EXIT_USER, ConfigError, UnicError
from unic.plugins import import_plugin, unknown
from unic.version import __version__

if TYPE_CHECKING:
    import torch

    from unic.train.recipe import Recipe

log = logging.getLogger("unic")


def main(arguments: Sequence[str] | None = None) -> int:
    """Entry point of the command `unic`; gives the exit code."""
    words = list(sys.argv[1:] if arguments is None else arguments)
    debug = "--debug" in words
    try:
        words = _take_plugins([word for word in words if word != "--debug"])
    except UnicError as error:
        if debug:
            raise
        return _explain(error)
    if not words or words[0] in ("-h", "--help"):
        print(_usage())
        return 0
    if words[0] == "--version":
        print(__version__)
        return 0
    verb, *rest = words
    if verb not in VERBS:
        return _explain(ConfigError(unknown("command", verb, VERBS)))
    try:
        return VERBS[verb](rest)
    except BrokenPipeError:
        return 0  # `unic ... | head`: whoever reads has enough
    except (UnicError, ImportError, OSError) as error:
        if debug:
            raise
        return _explain(error)
    except RuntimeError as error:
        if debug or not re.search("out of memory|not enough memory|can't allocate", str(error)):
            raise
        return _explain(ConfigError("not enough memory; use a smaller model, batch or speed.micro_batch"))
    except KeyboardInterrupt:
        return _explain(
            KeyboardInterrupt("interrupted; a run goes on from its newest checkpoint"), EXIT_TERMINATED
        )


def demo(words: list[str]) -> int:
    """Distil two real teachers into a small student on this machine, in about two minutes."""
    from unic.demo import run_demo

    options = _parse(_DemoOptions, words, "demo")
    with _process_group(options.device) as device:
        return 0 if run_demo(options.out, device) else EXIT_TERMINATED


def distill(words: list[str]) -> int:
    """Carry out a recipe: unic distill RECIPE --data.root DIR --out RUN; or repeat one: unic distill RUN/config.json"""
    from unic.train.loop import train

    name, recipe, words = _take_recipe(words)
    options = _parse(_distill_options(recipe), words, f"distill {name}")
    out = options.out or Path("runs") / name
    with _process_group(options.device) as device:
        if not train(_with_absolute_roots(options.recipe), out, device):
            log.warning("stopped; the same command goes on from here")
            return EXIT_TERMINATED
        log.info("done; evaluate it with: unic evaluate %s --data-root DIR", shlex.quote(str(out)))
    return 0


def evaluate(words: list[str]) -> int:
    """Measure encoders: unic evaluate ENCODER... --data-root DIR --evals knn"""
    from unic.compare import baselines, evaluate_encoders
    from unic.report.tables import print_results

    options = _parse(_evaluate_options(), words, "evaluate")
    with _process_group(options.device) as device:
        results = evaluate_encoders(
            options.encoders, options.dataset, options.data_root, options.evals, options.settings,
            device=device, untrained=options.untrained, out=options.out,
        )  # fmt: skip
        print_results(results, baselines(options.encoders))
    return 0


def teachers(words: list[str]) -> int:
    """List the teachers that have names: unic teachers list."""
    from rich.console import Console
    from rich.table import Table

    from unic.teachers import SCHEMES, TEACHERS

    _expect_list(words, "teachers")
    table = Table("name", "architecture (timm)", "pixels", "licence", "source")
    for name in TEACHERS:
        spec = TEACHERS[name]
        table.add_row(name, spec.model, str(spec.image_size), spec.licence, spec.source)
    Console().print(table)
    kinds = Table("URI, for example", "what", "options after `?`")
    for name in SCHEMES:
        scheme = SCHEMES[name]
        kinds.add_row(scheme.example, scheme.what, ", ".join(sorted(scheme.options)))
    Console().print(kinds)
    return 0


def datasets(words: list[str]) -> int:
    """List the data sets that evaluations know, and how their folders must look: unic datasets list."""
    from rich.console import Console
    from rich.table import Table

    from unic.data.datasets import DATASETS

    _expect_list(words, "datasets")
    table = Table("name", "splits", "classes", "layout", "source")
    for name in DATASETS:
        spec = DATASETS[name]
        table.add_row(name, " / ".join(spec.splits), str(spec.num_classes or "any"), spec.layout, spec.source)
    Console().print(table)
    return 0


def recipes(words: list[str]) -> int:
    """List the recipes: unic recipes list."""
    from unic.recipes import RECIPES

    _expect_list(words, "recipes")
    for name, recipe in RECIPES.items():
        print(f"{name:14} {(recipe.__doc__ or '').splitlines()[0]}")
    return 0


VERBS: dict[str, Callable[[list[str]], int]] = {
    verb.__name__: verb for verb in (demo, distill, evaluate, teachers, datasets, recipes)
}


@dataclass(frozen=True, kw_only=True)
class _Common:
    device: str = "auto"
    """auto: the accelerator when there is one; or a torch device such as cpu."""


@dataclass(frozen=True, kw_only=True)
class _DemoOptions(_Common):
    out: Path = Path("runs/demo")
    """Folder for the images, the run and its results."""


def _distill_options(defaults: "Recipe") -> type:
    """The options of `distill`: every field of the recipe, with the recipe's values as defaults."""
    import tyro

    @dataclass(frozen=True, kw_only=True)
    class Options(_Common):
        recipe: Annotated[type(defaults), tyro.conf.arg(name="")] = defaults  # type: ignore[valid-type]
        out: Path | None = None
        """Run folder; a run of the same configuration in it is taken up again. None: runs/RECIPE."""

    return Options


def _evaluate_options() -> type:
    import tyro

    from unic.evals import options_type

    of_evaluations = options_type()

    @dataclass(frozen=True, kw_only=True)
    class Options(_Common):
        encoders: tyro.conf.Positional[tuple[str, ...]]
        """Teachers by name, URIs (timm:..., file:...), or run folders."""
        data_root: Path
        """Folder of the data set."""
        dataset: str = "image_folder"
        """How the folder is read; see `unic datasets list`."""
        evals: tuple[str, ...] = ("knn",)
        """Which evaluations."""
        untrained: bool = False
        """Also evaluate the student of each run as it was initialised: what a result has to beat."""
        out: Path | None = None
        """File to which results are added, one JSON line each; those of a run are always added to its results.jsonl."""
        settings: Annotated[of_evaluations, tyro.conf.arg(name="")] = field(  # type: ignore[valid-type]
            default_factory=of_evaluations
        )

    return Options


def _take_plugins(words: list[str]) -> list[str]:
    """Takes out --plugin FILE and runs the files, which must happen before names are looked up."""
    rest = []
    remaining = iter(words)
    for word in remaining:
        name, equals, value = word.partition("=")
        if name == "--plugin":
            import_plugin(Path(value if equals else next(remaining, "")))
        else:
            rest.append(word)
    return rest


def _with_absolute_roots(recipe: "Recipe") -> "Recipe":
    """The same images from any working directory, and however a folder was spelled."""
    data = recipe.data
    roots, val_roots = (
        tuple(str(Path(root).expanduser().absolute()) for root in paths)
        for paths in (data.root, data.val_root)
    )
    return dataclasses.replace(recipe, data=dataclasses.replace(data, root=roots, val_root=val_roots))


def _take_recipe(words: list[str]) -> tuple[str, "Recipe", list[str]]:
    """The first word as a recipe: a name, or the config.json of a run (called RUN-repeat)."""
    from unic.config import from_dict, read_json
    from unic.recipes import RECIPES
    from unic.train.recipe import Recipe

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


def _parse(options: type, words: list[str], verb: str) -> Any:
    import tyro

    return tyro.cli(options, args=words, prog=f"unic {verb}", config=(tyro.conf.FlagConversionOff,))


@contextlib.contextmanager
def _process_group(device: str) -> "Iterator[torch.device]":
    """Joins other processes, and lets the main one talk: the others only warn."""
    from unic import parallel

    with parallel.process_group(device) as chosen:
        logging.basicConfig(
            level=logging.INFO if parallel.is_main() else logging.WARNING,
            format="%(asctime)s %(message)s"
            if parallel.world_size() == 1
            else f"%(asctime)s [{parallel.rank()}] %(message)s",
            datefmt="%H:%M:%S",
            force=True,
        )
        yield chosen


def _usage() -> str:
    lines = [f"unic {__version__}: distil several vision encoders into one, and measure the result", ""]
    lines += [f"  unic {name:10} {(verb.__doc__ or '').splitlines()[0]}" for name, verb in VERBS.items()]
    return "\n".join(
        [*lines, "", "unic COMMAND --help lists options. --plugin FILE.py adds teachers, data sets, evaluations.",
         "--debug shows the traceback of an error."]
    )  # fmt: skip


def _expect_list(words: list[str], verb: str) -> None:
    if words not in ([], ["list"]):
        raise ConfigError(f"unic {verb} takes the word `list`, got {' '.join(words)!r}")


def _explain(error: BaseException, code: int = EXIT_USER) -> int:
    print(f"unic: {error}", file=sys.stderr)
    return code
