"""How much memory a network needs: its weights, and the tensors alive at once while it looks at a batch."""

from typing import Any

from torch import Tensor, nn
from torch.multiprocessing.reductions import StorageWeakRef
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves


def parameter_bytes(model: nn.Module) -> int:
    """Bytes of parameters and buffers."""
    return sum(tensor.nbytes for tensor in (*model.parameters(), *model.buffers()))


class LiveBytes(TorchDispatchMode):
    """While it is entered, follows the tensors that operators give; `peak` is the most bytes of them alive at once.

    The same on every device, and of this block alone, where a process's high-water mark would remember earlier
    ones. What an operator takes for itself in passing is not seen, nor what the allocator keeps in reserve.
    kept: a model whose own tensors do not count.
    """

    def __init__(self, kept: nn.Module):
        super().__init__()
        self.peak = 0
        self._kept = {_storage(tensor) for tensor in (*kept.parameters(), *kept.buffers())}
        self._alive: dict[int, tuple[StorageWeakRef, int]] = {}

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        for tensor in tree_leaves(result):
            if isinstance(tensor, Tensor) and (key := _storage(tensor)) not in self._kept:
                storage = tensor.untyped_storage()
                self._alive[key] = (StorageWeakRef(storage), storage.nbytes())
        self._alive = {key: entry for key, entry in self._alive.items() if not entry[0].expired()}
        self.peak = max(self.peak, sum(size for _, size in self._alive.values()))
        return result


def _storage(tensor: Tensor) -> int:
    return tensor.untyped_storage()._cdata
