"""Evaluations of any encoder. `registry.py` says what one is; copy a file of `protocols/` to add one."""
