"""The command line `unic`: main.py runs a command, and each command is the module of its name."""

from unic.cli.main import main

__all__ = ["main"]
