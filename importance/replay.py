"""Forward passes that begin at any decoder block: what the blocks before it gave is kept, and given again."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn


class Replay:
    """What the decoder blocks gave in one forward pass, so that a later pass on the same inputs can begin at any block.

    The model's own code runs every time. A block that is left out gives all that it gave before, with whatever the
    model passes from block to block beside the hidden states. What blocks hand to each other in another way is not
    seen: :meth:`is_exact` tells.

    Args:
        blocks: Of the decoder.
    """

    def __init__(self, blocks: nn.ModuleList) -> None:
        self._blocks = list(blocks)
        self._kept: dict[int, Any] = {}
        self._order: list[int] = []

    @property
    def complete(self) -> bool:
        """Whether the recorded pass called each block once, by depth."""
        return self._order == list(range(len(self._blocks)))

    @contextmanager
    def recording(self) -> Iterator[None]:
        """Keeps copies of what the blocks give in a forward pass; those of an earlier pass are forgotten."""
        self._kept, self._order = {}, []

        def keeper(index: int) -> Callable[[nn.Module, Any, Any], None]:
            def keep(module: nn.Module, args: Any, output: Any) -> None:
                self._order.append(index)
                self._kept[index] = _copied(output)

            return keep

        handles = [block.register_forward_hook(keeper(index)) for index, block in enumerate(self._blocks)]
        try:
            yield
        finally:
            for handle in handles:
                handle.remove()

    @contextmanager
    def beginning_at(self, first: int) -> Iterator[None]:
        """Leaves out the blocks before ``first`` (all of them, if it is their number) while the context lasts."""
        own = [(block, vars(block).get("forward")) for block in self._blocks[:first]]

        def giver(index: int) -> Callable[..., Any]:
            return lambda *args, **kwargs: _copied(self._kept[index])  # a copy: the next one may write over it

        try:
            for index, (block, _) in enumerate(own):
                block.forward = giver(index)
            yield
        finally:
            for block, forward in own:
                if forward is None:
                    del block.forward
                else:
                    block.forward = forward

    def is_exact(self, run: Callable[[], Tensor]) -> bool:
        """Tells whether passes that begin at each of the blocks give bit for bit what the whole pass gives.

        Args:
            run: A forward pass without gradients, always on the same inputs.
        """
        with self.recording():
            expected = run()
        return self.complete and all(self._equals(expected, run, first) for first in range(1, len(self._blocks) + 1))

    def _equals(self, expected: Tensor, run: Callable[[], Tensor], first: int) -> bool:
        with self.beginning_at(first):
            return torch.equal(run(), expected)


def _copied(output: Any) -> Any:
    """Copies the tensors of what a block gives, in tuples, lists and dictionaries too."""
    if isinstance(output, Tensor):
        return output.detach().clone()
    if isinstance(output, dict):
        return type(output)({name: _copied(part) for name, part in output.items()})
    return type(output)(map(_copied, output)) if type(output) in (tuple, list) else output
