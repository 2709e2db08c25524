"""Checks every shape and type written in a signature, for the whole test run."""

from jaxtyping import install_import_hook

install_import_hook("unic", "beartype.beartype")
