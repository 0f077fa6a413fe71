"""Counts the bytes of live tensors, by what they are for."""

from __future__ import annotations

import weakref
from collections import Counter
from collections.abc import Iterable, Iterator
from contextlib import contextmanager

import torch
from torch import Tensor

from ..foundation.sharding import own_part

WEIGHTS = "weights"
GRADIENTS = "gradients"
OPTIMIZER = "optimizer state"
TEACHER = "untouched copy of the LLM"
STRENGTHS = "Fisher map of a penalty"
GATHERED = "weights gathered from other ranks"
SCORES = "importance: sums and maps"
ACTIVATIONS = "activations and scratch"


class Meter:
    """Bytes of live storages by label, and what they were at the peak.

    torch's own ``torch.distributed._tools.MemTracker`` labels by module and refuses a model that is called twice in a
    step, as distillation calls it; and its labels are fixed.

    Attributes:
        live: Label -> bytes now.
        peak: Label -> bytes at the moment with the highest sum since :meth:`restart`.
        flops: Floating-point operations since then.
    """

    def __init__(self) -> None:
        self.live: Counter[str] = Counter()
        self.peak: Counter[str] = Counter()
        self.flops = 0
        self._label = ACTIVATIONS
        self._known: dict[int, tuple[str, int]] = {}

    @contextmanager
    def counting(self, label: str) -> Iterator[None]:
        """Labels what is allocated within the context."""
        before, self._label = self._label, label
        try:
            yield
        finally:
            self._label = before

    def count(self, tensor: Tensor) -> None:
        """Counts a tensor's storage, once, until it is freed."""
        storage = tensor.untyped_storage()
        key, size = storage._cdata, storage.nbytes()
        if key in self._known:
            return
        self._known[key] = (self._label, size)
        self.live[self._label] += size
        weakref.finalize(storage, self._free, key)
        self._note_peak()

    def resized(self, storage: torch.UntypedStorage) -> None:
        """Counts a storage at another size: FSDP2 frees and takes the memory of gathered weights in place."""
        label, before = self._known.get(storage._cdata, (GATHERED, 0))
        if storage._cdata in self._known:
            self.live[label] -= before
            self._known[storage._cdata] = (GATHERED, storage.nbytes())
            self.live[GATHERED] += storage.nbytes()
            self._note_peak()

    def label(self, tensors: Iterable[Tensor | None], label: str) -> None:
        """Relabels tensors that are already counted."""
        for tensor in tensors:
            key = -1 if tensor is None else tensor.untyped_storage()._cdata
            if key in self._known:
                before, size = self._known[key]
                self._known[key] = (label, size)
                self.live[before] -= size
                self.live[label] += size

    def watch_gradients(self, parameters: Iterable[torch.nn.Parameter]) -> None:
        """Labels each gradient as soon as the backward pass has produced it."""
        for parameter in parameters:
            if parameter.requires_grad:
                parameter.register_post_accumulate_grad_hook(lambda p: self.label([own_part(p.grad)], GRADIENTS))

    def restart(self) -> None:
        """Resets the peak to what is alive now, and the operations to zero."""
        self.peak, self.flops = self.live.copy(), 0

    def _note_peak(self) -> None:
        if self.live.total() > self.peak.total():
            self.peak = self.live.copy()

    def _free(self, key: int) -> None:
        label, size = self._known.pop(key)
        self.live[label] -= size
