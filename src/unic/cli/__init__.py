"""The command line: each verb reads its words, calls one function and says what came of it.

Exit codes: 0 done; 2 a mistake of the user's or of the surroundings (one sentence, no traceback); 143 stopped by a
signal, with a checkpoint.
"""

import re
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

from unic.cli.benching import bench
from unic.cli.encoders import export, import_, teachers
from unic.cli.measuring import datasets, evaluate
from unic.cli.reporting import report
from unic.cli.runs import demo, distill, recipes
from unic.cli.seeing import visualize
from unic.core.errors import EXIT_TERMINATED, EXIT_USER, ConfigError, UnicError
from unic.core.plugins import import_plugin, unknown
from unic.version import __version__

VERBS: dict[str, Callable[[list[str]], int]] = {
    "demo": demo,
    "distill": distill,
    "evaluate": evaluate,
    "report": report,
    "visualize": visualize,
    "import": import_,
    "export": export,
    "teachers": teachers,
    "datasets": datasets,
    "recipes": recipes,
    "bench": bench,
}


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
        if debug:
            raise
        if any(kind.__name__ == "BackendCompilerFailed" for kind in type(error).__mro__):
            return _explain(
                ConfigError(
                    f"torch cannot compile for this device ({(str(error).splitlines() or ['no reason given'])[0]}); it "
                    f"needs a C compiler and Python's headers. Or do without: --speed.kernels plain"
                )
            )
        if not re.search("out of memory|not enough memory|can't allocate", str(error)):
            raise
        return _explain(ConfigError("not enough memory; use a smaller model, batch or speed.micro_batch"))
    except KeyboardInterrupt:
        return _explain(
            KeyboardInterrupt("interrupted; a run goes on from its newest checkpoint"), EXIT_TERMINATED
        )


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


def _usage() -> str:
    lines = [f"unic {__version__}: distil several vision encoders into one, and measure the result", ""]
    lines += [f"  unic {name:10} {(verb.__doc__ or '').splitlines()[0]}" for name, verb in VERBS.items()]
    return "\n".join(
        [*lines, "", "unic COMMAND --help lists options. --plugin FILE.py adds teachers, data sets, evaluations.",
         "--debug shows the traceback of an error."]
    )  # fmt: skip


def _explain(error: BaseException, code: int = EXIT_USER) -> int:
    print(f"unic: {error}", file=sys.stderr)
    return code
