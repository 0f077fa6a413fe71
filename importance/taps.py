"""Taps: identities in the graph that hand (input, output gradient) of a module to a sink during the backward pass.

Every score of an example follows from these two, since its weight gradient is their product (Goodfellow 2015,
1510.01799).

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

from .rehearsal import Use
from .site_table import Site


class Sink(Protocol):
    """Receives what the taps see. Called inside the backward pass, without gradients."""

    def output_gradient(self, index: int, a: Tensor, y: Tensor | None, b: Tensor) -> None:
        """Receives that site ``index`` had input ``a``, output ``y`` (if asked for) and gradient ``b`` there."""
        ...

    def input_gradient(self, index: int, a: Tensor, dx: Tensor) -> None:
        """Receives that site ``index`` had input ``a`` and passed the gradient ``dx`` to it."""
        ...

    def lookup_gradient(self, index: int, ids: Tensor, e: Tensor) -> None:
        """Receives that the embedding of site ``index`` looked up ``ids`` and got the gradient ``e``."""
        ...


class OutputTap(torch.autograd.Function):
    """Identity on a module's output that reports (input, output, gradient)."""

    @staticmethod
    def forward(ctx: Any, y: Tensor, a: Tensor, keep_output: bool, copy: bool, call: Any) -> Tensor:
        """Keeps the input, and the output on request; passes on a copy where it will be overwritten."""
        ctx.save_for_backward(a, *([y] if keep_output else []))
        ctx.call = call
        return y.clone() if copy else y.view_as(y)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None, None, None, None]:
        """Reports and passes the gradient on unchanged."""
        a, *y = ctx.saved_tensors
        with torch.no_grad():
            ctx.call(a, y[0] if y else None, gradients[0])
        return gradients[0], None, None, None, None


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
        sink: Receives the reports.
        outputs: Tap outputs (needed by Fisher, Taylor and signed row sums).
        inputs: Tap inputs of dense sites (needed by signed Taylor).
        keep_outputs: Hand the outputs to the sink too.
        uses: How a forward pass uses each site; by default each is called once.
    """

    def __init__(
        self,
        sites: Sequence[Site],
        sink: Sink,
        outputs: bool,
        inputs: bool,
        keep_outputs: bool = False,
        uses: Sequence[Use] | None = None,
    ) -> None:
        self.sites = sites
        self._sink = sink
        self._outputs, self._inputs, self._keep = outputs, inputs, keep_outputs
        self._uses = uses or [Use(calls=1, lookups=int(site.tied is not None)) for site in sites]
        self._fired: Counter[tuple[str, int]] = Counter()
        self._expected: dict[tuple[str, int], int] = {}

    @contextmanager
    def attached(self) -> Iterator[Taps]:
        """Registers the hooks within the context."""
        handles = []
        try:
            for index, site in enumerate(self.sites):
                handles += self._attach(index, site)
            yield self
        finally:
            for handle in handles:
                handle.remove()

    def check(self) -> None:
        """Compares what fired in one backward pass with what should have, and starts a new count.

        A silent tap means a weight that no gradient reaches: its score is zero. But a whole decoder block
        without one has lost its taps.

        Raises:
            RuntimeError: If a tap fired too often or a block's were all silent: the scores would be wrong.
        """
        fired, self._fired = self._fired, Counter()
        wrong = [key for key in fired if fired[key] > self._expected[key]]
        heard = {self.sites[index].layer for _, index in fired}
        wrong += [key for key in self._expected if self.sites[key[1]].layer not in heard]
        if wrong:
            part, index = min(wrong, key=lambda key: key[1])
            raise RuntimeError(
                f"importance: {len(wrong)} of {len(self._expected)} taps did not fire as often as their modules were "
                f"called, first {self.sites[index].name} ({part}: {fired[(part, index)]} times). Compiled or skipped "
                f"blocks cannot be measured; pass the uncompiled model"
            )

    def _attach(self, index: int, site: Site) -> list[Any]:
        if isinstance(site.module, nn.Embedding):
            return [self._on_lookup(index, site.module)]
        handles = []
        dense = site.parameter is None
        for module in (site.module, *site.shared):
            if self._outputs or not dense or site.tied is not None:
                handles.append(self._on_output(index, module))
            if self._inputs and dense and site.tied is None:
                handles.append(self._on_input(index, module))
        if site.tied is not None:
            handles.append(self._on_lookup(index, site.tied))
        return handles

    def _counted(self, part: str, index: int, report: Any) -> Any:
        use = self._uses[index]
        self._expected[(part, index)] = use.lookups if part == "lookup" and use.lookups else use.calls

        def call(*tensors: Tensor | None) -> None:
            self._fired[(part, index)] += 1
            report(index, *tensors)

        return call

    def _on_output(self, index: int, module: nn.Module) -> Any:
        call = self._counted("output", index, self._sink.output_gradient)
        copy = self._uses[index].overwritten

        def hook(module: nn.Module, args: tuple[Any, ...], output: Tensor) -> Tensor:
            # not through the input: if the output is detached, no gradient reaches the weight
            return OutputTap.apply(output, args[0].detach(), self._keep, copy, call)

        return module.register_forward_hook(hook)

    def _on_input(self, index: int, module: nn.Module) -> Any:
        call = self._counted("input", index, self._sink.input_gradient)

        def hook(module: nn.Module, args: tuple[Any, ...]) -> tuple[Any, ...]:
            return (InputTap.apply(args[0], call), *args[1:])

        return module.register_forward_pre_hook(hook)

    def _on_lookup(self, index: int, module: nn.Module) -> Any:
        call = self._counted("lookup", index, self._sink.lookup_gradient)
        copy = self._uses[index].overwritten

        def hook(module: nn.Module, args: tuple[Any, ...], output: Tensor) -> Tensor:
            return OutputTap.apply(output, args[0], False, copy, lambda ids, _, e: call(ids, e))

        return module.register_forward_hook(hook)
