"""Counts the bytes of all live tensors: exact and the same on every machine, unlike peak RSS."""

from __future__ import annotations

import weakref
from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves


class LiveMemory(TorchDispatchMode):
    """While active, adds up storages as operators return them, and subtracts them when they are freed.

    What a kernel uses inside (packing buffers of a matrix product) is not seen.

    Args:
        resting: Tensors that exist already and are not counted: the model and the data.
    """

    def __init__(self, resting: Iterable[Tensor]) -> None:
        super().__init__()
        self.live = self.peak = 0
        self._known = {tensor.untyped_storage()._cdata for tensor in resting}

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Runs the operator and inspects its results."""
        result = func(*args, **(kwargs or {}))
        for leaf in tree_leaves(result):
            if isinstance(leaf, Tensor):
                self._count(leaf.untyped_storage())
        return result

    def _count(self, storage: torch.UntypedStorage) -> None:
        key, size = storage._cdata, storage.nbytes()
        if key in self._known:
            return
        self._known.add(key)
        self.live += size
        self.peak = max(self.peak, self.live)
        weakref.finalize(storage, self._free, key, size)

    def _free(self, key: int, size: int) -> None:
        self._known.discard(key)
        self.live -= size


def peak_mib(work: Callable[[], Any], resting: Iterable[Tensor]) -> float:
    """Peak MiB of live tensors during ``work``, beyond ``resting``."""
    with LiveMemory(resting) as memory:
        work()
    return memory.peak / 2**20
