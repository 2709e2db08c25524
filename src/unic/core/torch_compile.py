"""Functions as torch's compiler writes them: what passes over memory again and again becomes one pass.

For accelerators. What was compiled is kept on the disk, so that only the first run on a machine waits for it.
"""

import functools
import os
from collections.abc import Callable
from typing import Any, ParamSpec, TypeVar

import torch
from torch import nn

from unic.core.cache_dir import cache_dir

P = ParamSpec("P")
R = TypeVar("R")

_KEPT_IN = "TORCHINDUCTOR_CACHE_DIR"

# Forms of one function, by the shapes and types that it is called with. Blocks of all teachers and of the student, in
# training and in validation, are one function to torch, which by itself stops at 8 and goes on uncompiled.
_MOST_FORMS = 256


def compiled(function: Callable[P, R]) -> Callable[P, R]:
    """`function`, compiled when it is first called, and again for other shapes."""
    return _compiled(function)


def compile_module(module: nn.Module) -> None:
    """Compiles what happens when `module` is called; its names, weights and hooks stay as they are."""
    _prepare()
    module.compile(dynamic=False)


@functools.cache
def _compiled(function: Callable[..., Any]) -> Callable[..., Any]:
    _prepare()
    return torch.compile(function, dynamic=False)


@functools.cache
def _prepare() -> None:
    from torch._inductor.runtime.cache_dir_utils import default_cache_dir

    # Torch notes its own choice there, a temporary folder, as if it were the user's.
    if os.environ.get(_KEPT_IN) in (None, default_cache_dir()):
        os.environ[_KEPT_IN] = str(cache_dir() / "compiled")
    settings: Any = torch._dynamo.config
    settings.recompile_limit = max(settings.recompile_limit, _MOST_FORMS)
    # It would cut each compiled block at the size of a bucket of gradients; blocks are small enough to share theirs.
    settings.optimize_ddp = False
