"""Losses after a change in one decoder block, without running the blocks before it again."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from ..foundation.decoder import find_blocks
from .evaluate import answer_losses

CLOSE = 1e-5  # nats: losses by either way must agree


class ResumedLosses:
    """Losses of fixed batches, run from any block on: what the blocks before it gave is kept.

    Testing a group of weights in block l costs the blocks from l on only, half a pass on average. Models whose blocks
    pass more than the hidden states to each other are recognised by their losses, and run from the start.

    Args:
        model: The bare model, with the weights that the kept states belong to.
        batches: As for ``probe``.
        autocast: Compute type.

    Attributes:
        losses: (N,) of the model as it is.
        resumes: Whether blocks are left out.
    """

    def __init__(
        self, model: nn.Module, batches: Sequence[Mapping[str, Any]], autocast: torch.dtype | None = None
    ) -> None:
        self._model, self._batches, self._autocast = model, batches, autocast
        self._blocks = find_blocks(model)[1]
        self._inputs: list[list[Tensor]] = []
        self._tuples = False
        with self._recording():
            self.losses = answer_losses(model, batches, autocast)[0]
        self.resumes = all(len(kept) == len(self._blocks) for kept in self._inputs)
        if self.resumes:
            again = self.after_change(len(self._blocks) // 2)
            self.resumes = bool(np.abs(again - self.losses).max() < CLOSE)

    def after_change(self, layer: int | None) -> np.ndarray:
        """Measures the losses (N,) now that something in block ``layer`` (``None``: anywhere) is different."""
        if layer is None or not self.resumes:
            return answer_losses(self._model, self._batches, self._autocast)[0]
        with self._skipping(layer):
            return answer_losses(self._model, self._batches, self._autocast)[0]

    @contextmanager
    def _recording(self) -> Iterator[None]:
        def begin(module: nn.Module, args: Any, kwargs: Any) -> None:
            self._inputs.append([])

        def keep(module: nn.Module, args: Any, kwargs: Any) -> None:
            self._inputs[-1].append((args[0] if args else kwargs["hidden_states"]).detach().clone())

        def look(module: nn.Module, args: Any, output: Any) -> None:
            self._tuples = isinstance(output, tuple)

        handles = [self._model.register_forward_pre_hook(begin, with_kwargs=True)]
        handles += [block.register_forward_pre_hook(keep, with_kwargs=True) for block in self._blocks]
        handles.append(self._blocks[0].register_forward_hook(look))
        try:
            yield
        finally:
            for handle in handles:
                handle.remove()

    @contextmanager
    def _skipping(self, layer: int) -> Iterator[None]:
        """Blocks before ``layer`` pass on what they receive; ``layer`` receives what was kept for the batch."""
        queue = iter(self._inputs)

        def resume(module: nn.Module, args: Any, kwargs: Any) -> tuple[Any, Any]:
            kept = next(queue)[layer]
            return ((kept, *args[1:]), kwargs) if args else (args, {**kwargs, "hidden_states": kept})

        def hand_on(hidden_states: Tensor, *args: Any, **kwargs: Any) -> Any:
            return (hidden_states,) if self._tuples else hidden_states

        skipped = list(self._blocks)[:layer]
        handle = self._blocks[layer].register_forward_pre_hook(resume, with_kwargs=True)
        try:
            for block in skipped:
                block.__dict__["forward"] = hand_on
            yield
        finally:
            handle.remove()
            for block in skipped:
                block.__dict__.pop("forward", None)
