"""The entry point: finds the command, imports its module, runs it, and makes a sentence of what goes wrong.

Exit codes: 0 done; 1 measured, but the settings of `unic bench` disagree; 2 a mistake of the user's or of the
surroundings (one sentence, no traceback); 143 stopped by a signal, with a checkpoint.
"""

import ast
import importlib
import importlib.util
import re
import sys
from collections.abc import Sequence
from pathlib import Path

from unic.core.errors import EXIT_TERMINATED, EXIT_USER, ConfigError, UnicError
from unic.core.registry import import_plugin, unknown
from unic.version import __version__

VERBS = (
    *("demo", "distill", "evaluate", "report", "visualize", "import", "export"),
    *("teachers", "datasets", "recipes", "bench"),
)


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs `unic` with these words, or with those of the command line; gives the exit code."""
    words = list(sys.argv[1:] if arguments is None else arguments)
    debug = "--debug" in words
    try:
        return _run([word for word in words if word != "--debug"])
    except BrokenPipeError:
        return 0  # `unic ... | head`: whoever reads has enough
    except KeyboardInterrupt:
        return _explain("interrupted; a run goes on from its newest checkpoint", EXIT_TERMINATED)
    except (UnicError, ImportError, OSError) as error:
        if debug:
            raise
        return _explain(str(error))
    except RuntimeError as error:
        sentence = _explain_torch_error(error)
        if debug or sentence is None:
            raise
        return _explain(sentence)


def module_of(verb: str) -> str:
    """The module whose `run` is this command."""
    return f"unic.cli.{'import_' if verb == 'import' else verb}"  # `import` is a word of Python's


def _summary(verb: str) -> str:
    """The first line of the command's module, which is parsed and not imported: `unic --help` is quick."""
    spec = importlib.util.find_spec(module_of(verb))
    assert spec is not None and spec.origin is not None, verb
    return (ast.get_docstring(ast.parse(Path(spec.origin).read_text())) or "").splitlines()[0]


def _run(words: list[str]) -> int:
    words = _take_plugins(words)
    if not words or words[0] in ("-h", "--help"):
        print(_usage())
        return 0
    verb, *rest = words
    if verb == "--version":
        print(__version__)
        return 0
    if verb not in VERBS:
        raise ConfigError(unknown("command", verb, VERBS))
    return importlib.import_module(module_of(verb)).run(rest)


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
    return "\n".join(
        [
            f"unic {__version__}: distil several vision encoders into one, and measure the result",
            "",
            *(f"  unic {verb:10} {_summary(verb)}" for verb in VERBS),
            "",
            "unic COMMAND --help lists options. --plugin FILE.py adds teachers, data sets, evaluations.",
            "--debug shows the traceback of an error.",
        ]
    )


def _explain_torch_error(error: RuntimeError) -> str | None:
    """A sentence for errors of torch that a user can do something about; None for all others."""
    if any(kind.__name__ == "BackendCompilerFailed" for kind in type(error).__mro__):
        reason = (str(error).splitlines() or ["no reason given"])[0]
        return (
            f"torch cannot compile for this device ({reason}); it needs a C compiler and Python's headers. "
            f"Or do without: --speed.kernels exact"
        )
    if re.search("out of memory|not enough memory|can't allocate", str(error)):
        return "not enough memory; use a smaller model, batch or speed.micro_batch"
    return None


def _explain(sentence: str, code: int = EXIT_USER) -> int:
    print(f"unic: {sentence}", file=sys.stderr)
    return code
