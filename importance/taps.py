"""Taps: identities in the graph that hand (input, output gradient) of a module to a sink during the backward pass.

From the two every score of an example follows, as its weight gradient is their product (Goodfellow 2015, 1510.01799).

The weights stay frozen, so no ``p.grad`` is made, no reducer or scaler sees the pass, and activation checkpointing
works: what a tap keeps goes through ``save_for_backward``, whose hooks recompute it.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from .sites import Site


class Sink(Protocol):
    """Receives what the taps see. Called inside the backward pass, without gradients."""

    def output_gradient(self, index: int, a: Tensor, y: Tensor | None, b: Tensor) -> None:
        """Site ``index`` had input ``a``, output ``y`` (if asked for) and gradient ``b`` at its output."""
        ...

    def input_gradient(self, index: int, a: Tensor, dx: Tensor) -> None:
        """Site ``index`` had input ``a`` and passed the gradient ``dx`` to it."""
        ...

    def lookup_gradient(self, index: int, ids: Tensor, e: Tensor) -> None:
        """The embedding of site ``index`` looked up ``ids`` and received the gradient ``e``."""
        ...


class OutputTap(torch.autograd.Function):
    """Identity on a module's output that reports (input, output, gradient)."""

    @staticmethod
    def forward(ctx: Any, y: Tensor, a: Tensor, keep_output: bool, call: Any) -> Tensor:
        """Keeps the input, and the output if asked."""
        ctx.save_for_backward(a, *([y] if keep_output else []))
        ctx.call = call
        return y.view_as(y)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None, None, None]:
        """Reports and passes the gradient on unchanged."""
        a, *y = ctx.saved_tensors
        with torch.no_grad():
            ctx.call(a, y[0] if y else None, gradients[0])
        return gradients[0], None, None, None


class InputTap(torch.autograd.Function):
    """Identity on one module's input that reports (input, gradient from this module alone)."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, call: Any) -> Tensor:
        """Keeps the input."""
        ctx.save_for_backward(x)
        ctx.call = call
        return x.view_as(x)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None]:
        """Reports and passes the gradient on unchanged."""
        with torch.no_grad():
            ctx.call(ctx.saved_tensors[0], gradients[0])
        return gradients[0], None


class Taps:
    """Hooks on all sites, and the count of what fired.

    Args:
        sites: Where to listen.
        sink: Whom to tell.
        outputs: Tap outputs (needed by Fisher, Taylor and signed row sums).
        inputs: Tap inputs of dense sites (needed by signed Taylor).
        keep_outputs: Hand the outputs to the sink too.
    """

    def __init__(
        self, sites: Sequence[Site], sink: Sink, outputs: bool, inputs: bool, keep_outputs: bool = False
    ) -> None:
        self.sites = sites
        self._sink = sink
        self._outputs, self._inputs, self._keep = outputs, inputs, keep_outputs
        self._fired: Counter[tuple[str, int]] = Counter()
        self._expected: set[tuple[str, int]] = set()

    @contextmanager
    def attached(self) -> Iterator[Taps]:
        """Hooks in place while the context lasts."""
        handles = []
        try:
            for index, site in enumerate(self.sites):
                handles += self._attach(index, site)
            yield self
        finally:
            for handle in handles:
                handle.remove()

    def check(self) -> None:
        """Compares what fired in one backward pass with what must have, and starts a new count.

        Raises:
            RuntimeError: If a tap was silent or fired twice: the scores would be wrong.
        """
        wrong = [key for key in self._expected | set(self._fired) if self._fired[key] != 1]
        fired, self._fired = self._fired, Counter()
        if wrong:
            part, index = min(wrong, key=lambda key: key[1])
            raise RuntimeError(
                f"importance: {len(wrong)} of {len(self._expected)} taps did not fire exactly once, first "
                f"{self.sites[index].name} ({part}: {fired[(part, index)]} times). Compiled blocks, weights used "
                f"twice or skipped layers cannot be measured; pass the uncompiled model"
            )

    def _attach(self, index: int, site: Site) -> list[Any]:
        if isinstance(site.module, nn.Embedding):
            return [self._on_lookup(index, site.module)]
        handles = []
        dense = site.parameter is None
        if self._outputs or not dense or site.tied is not None:
            handles.append(self._on_output(index, site.module))
        if self._inputs and dense and site.tied is None:
            handles.append(self._on_input(index, site.module))
        if site.tied is not None:
            handles.append(self._on_lookup(index, site.tied))
        return handles

    def _counted(self, part: str, index: int, report: Any) -> Any:
        self._expected.add((part, index))

        def call(*tensors: Tensor | None) -> None:
            self._fired[(part, index)] += 1
            report(index, *tensors)

        return call

    def _on_output(self, index: int, module: nn.Module) -> Any:
        call = self._counted("output", index, self._sink.output_gradient)

        def hook(module: nn.Module, args: tuple[Any, ...], output: Tensor) -> Tensor:
            return OutputTap.apply(output, args[0], self._keep, call)

        return module.register_forward_hook(hook)

    def _on_input(self, index: int, module: nn.Module) -> Any:
        call = self._counted("input", index, self._sink.input_gradient)

        def hook(module: nn.Module, args: tuple[Any, ...]) -> tuple[Any, ...]:
            return (InputTap.apply(args[0], call), *args[1:])

        return module.register_forward_pre_hook(hook)

    def _on_lookup(self, index: int, module: nn.Module) -> Any:
        call = self._counted("lookup", index, self._sink.lookup_gradient)

        def hook(module: nn.Module, args: tuple[Any, ...], output: Tensor) -> Tensor:
            taps = OutputTap.apply(output, args[0], False, lambda ids, _, e: call(ids, e))
            return taps

        return module.register_forward_hook(hook)
