"""Forward passes that begin at any decoder block: the outputs of the earlier blocks are kept and replayed."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import Any

import torch
from torch import Tensor, nn


class Replay:
    """The decoder blocks' outputs in one forward pass, so that a later pass on the same inputs can begin at any block.

    The model's own code runs every time. A skipped block returns everything it returned before, including whatever the
    model passes from block to block besides the hidden states. Anything that blocks pass on in another way goes unseen,
    which :meth:`is_exact` detects.

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
        """Keeps copies of the blocks' outputs in a forward pass; those of an earlier pass are dropped."""
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

    def beginning_at(self, first: int) -> AbstractContextManager[None]:
        """Skips the blocks before ``first`` (all of them if it equals their number) within the context."""
        return self._without(range(first))

    @contextmanager
    def _without(self, left_out: Iterable[int]) -> Iterator[None]:
        own = {index: vars(self._blocks[index]).get("forward") for index in left_out}

        def giver(index: int) -> Callable[..., Any]:
            return lambda *args, **kwargs: _copied(self._kept[index])  # a copy: the next one may overwrite it

        try:
            for index in own:
                self._blocks[index].forward = giver(index)
            yield
        finally:
            for index, forward in own.items():
                if forward is None:
                    del self._blocks[index].forward
                else:
                    self._blocks[index].forward = forward

    def is_exact(self, run: Callable[[], Tensor]) -> bool:
        """Returns whether each block returns the same bits with all others skipped, and the model with all skipped.

        If so, no block needs anything but its inputs, and a pass may begin at any of them. A pass with other hidden
        states comes in between, so that leftover state cannot be right by luck. Costs three passes.

        Args:
            run: A forward pass without gradients, always on the same inputs.
        """
        with self.recording():
            expected = run()
        if not self.complete:
            return False
        disturbed = self._blocks[0].register_forward_pre_hook(_turned_round, with_kwargs=True)
        try:
            run()
        finally:
            disturbed.remove()
        blocks = range(len(self._blocks))
        if not all(self._gives_the_same(index, run) for index in reversed(blocks)):  # before those below run again
            return False
        with self._without(blocks):
            return torch.equal(run(), expected)

    def _gives_the_same(self, index: int, run: Callable[[], Tensor]) -> bool:
        found: list[bool] = []

        def look(module: nn.Module, args: Any, output: Any) -> None:
            found.append(_same(output, self._kept[index]))

        handle = self._blocks[index].register_forward_hook(look)
        try:
            with self._without(other for other in range(len(self._blocks)) if other != index):
                run()
        finally:
            handle.remove()
        return found == [True]


def _turned_round(module: nn.Module, args: Any, kwargs: Any) -> tuple[Any, Any]:
    """Passes a block other hidden states than it would receive."""
    return ((-args[0], *args[1:]), kwargs) if args else (args, {**kwargs, "hidden_states": -kwargs["hidden_states"]})


def _copied(output: Any) -> Any:
    return _mapped(output, lambda part: part.detach().clone())


def _mapped(output: Any, change: Callable[[Tensor], Tensor]) -> Any:
    """Changes the tensors of a block's output, including those in tuples, lists and dictionaries."""
    if isinstance(output, Tensor):
        return change(output)
    if isinstance(output, dict):
        return type(output)({name: _mapped(part, change) for name, part in output.items()})
    return type(output)(_mapped(part, change) for part in output) if type(output) in (tuple, list) else output


def _same(one: Any, other: Any) -> bool:
    if isinstance(one, Tensor):
        return torch.equal(one, other)
    if isinstance(one, dict):
        return all(_same(part, other[name]) for name, part in one.items())
    return type(one) not in (tuple, list) or all(_same(a, b) for a, b in zip(one, other, strict=True))
