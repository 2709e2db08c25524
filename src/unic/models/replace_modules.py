"""One walk through a network that is being built, for all forms that take the place of a module."""

from collections.abc import Callable

from torch import nn


def replace_modules(network: nn.Module, form_of: Callable[[nn.Module], nn.Module | None]) -> int:
    """Puts `form_of(module)` in the place of every module for which it is not None; gives their number."""
    count = 0
    for parent in list(network.modules()):
        for name, module in list(parent.named_children()):
            form = form_of(module)
            if form is not None:
                setattr(parent, name, form)
                count += 1
    return count
