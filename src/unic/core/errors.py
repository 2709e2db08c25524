"""Errors a user can cause or meet: each message says what was got, what was expected, what to do next.

The command line prints the message without a traceback and exits with `EXIT_USER`.
"""

EXIT_USER = 2
EXIT_TERMINATED = 143


def first_line(error: BaseException) -> str:
    """What another library says, on one line; the name of its error where it says nothing."""
    return (str(error).splitlines() or [type(error).__name__])[0]


class UnicError(Exception):
    """Base of every error that is explained in one sentence instead of a traceback."""


class ConfigError(UnicError, ValueError):
    """A name, option or combination of options that cannot work."""


class DataError(UnicError, ValueError):
    """Images, folders or labels that cannot be used."""


class WeightsError(UnicError, ValueError):
    """A file of weights that is damaged, unsafe, or of another architecture."""


class NonFiniteError(UnicError, ArithmeticError):
    """A loss or a gradient became infinite or not a number."""
