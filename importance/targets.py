"""What can be removed from a decoder to measure its effect: whole blocks, matrices or attention heads."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from ..foundation.run_names import layer_label
from .site_table import Site, SiteTable
from .snapshot_data import Group
from .weights import bias_of

ABLATED = ("layer", "matrix", "head")
"""What can be removed."""
ABLATED_WITH = ("zero", "mean")
"""What can replace it."""
HEAD_SIZES = ("head_dim", "head_size", "attention_head_size")
"""Attribute names that attention modules use for the size of a head."""
INWARD = ("q", "k", "v", "qkv")
"""Matrices of attention that are not behind the heads."""

Change = Callable[[Tensor], Tensor | None]
"""Receives a group's output (B, T, F) and returns its replacement; ``None`` leaves it unchanged."""


class Target(ABC):
    """A group that can be removed from the forward pass.

    Args:
        group: What it is called.
        begins: The first block that has to run when the group is removed.
    """

    def __init__(self, group: Group, begins: int) -> None:
        self.group, self.begins = group, begins

    @abstractmethod
    def hooks(self, change: Change) -> list[Any]:
        """Installs ``change``, and returns the handles that remove it."""

    def nothing(self, given: Tensor) -> Tensor:
        """Builds the output of a group whose weights are zero, in the shape of its output."""
        return torch.zeros_like(given)

    @contextmanager
    def seen_by(self, change: Change) -> Iterator[None]:
        """Lets ``change`` see or replace the group's output within the context."""
        handles = self.hooks(change)
        try:
            yield
        finally:
            for handle in handles:
                handle.remove()

    def taken_out(self, mean: Tensor | None) -> Any:
        """Removes the group within the context: its output is zero, or ``mean`` (F,) at every position."""

        def instead(given: Tensor) -> Tensor:
            # a copy, as some models add to it in place
            return self.nothing(given) if mean is None else mean.to(given).expand_as(given).clone()

        return self.seen_by(instead)


class Layer(Target):
    """A decoder block. Its output is what it adds to the hidden states: zero skips it and keeps the residual.

    Attention and MLP go together: in a pre-norm block these are its two contributions to the residual stream. A block
    that normalises the sum itself (post-norm) is skipped along with that norm.

    Args:
        block: The block.
        index: Its depth.
        layers: Number of blocks.
    """

    def __init__(self, block: nn.Module, index: int, layers: int) -> None:
        super().__init__(Group(layer_label(index, layers), index, "layer"), index + 1)  # its output is replayed
        self._block = block

    def hooks(self, change: Change) -> list[Any]:
        """Sees (output - input) of the block."""
        inputs: list[Tensor] = []

        def begin(module: nn.Module, args: Any, kwargs: Any) -> None:
            inputs[:] = [_hidden(args, kwargs).clone()]  # a block may overwrite its input

        def end(module: nn.Module, args: Any, output: Any) -> Any:
            first = output if isinstance(output, Tensor) else output[0]
            before = inputs[0]
            if first.shape != before.shape:
                raise ValueError(
                    f"importance: {self.group.name} ({type(module).__name__}) gives {tuple(first.shape)} for hidden "
                    f"states {tuple(before.shape)}: it cannot be skipped; allowed: ablate=matrix or ablate=head"
                )
            changed = change(first - before)
            if changed is None:
                return output
            return before + changed if first is output else type(output)((before + changed, *output[1:]))

        handle = self._block.register_forward_pre_hook(begin, with_kwargs=True)
        return [handle, self._block.register_forward_hook(end)]


class WeightMatrix(Target):
    """An effective weight matrix (with its adapters). Zero replaces its output by the bias alone.

    Args:
        site: The matrix.
    """

    def __init__(self, site: Site) -> None:
        assert site.layer is not None
        super().__init__(Group(site.name, site.layer, site.kind), site.layer)
        self._site = site

    def nothing(self, given: Tensor) -> Tensor:
        """Returns the bias, which is not part of the matrix, at every position."""
        bias = bias_of(self._site.module)
        return torch.zeros_like(given) if bias is None else bias.to(given).expand_as(given).clone()

    def hooks(self, change: Change) -> list[Any]:
        """Sees the outputs of all modules that use the weight."""

        def end(module: nn.Module, args: Any, output: Tensor) -> Tensor | None:
            return change(output)

        return [module.register_forward_hook(end) for module in (self._site.module, *self._site.shared)]


class Head(Target):
    """An attention head. Its output is its part of the output projection's input.

    Args:
        site: The output projection.
        head: Number of the head.
        size: Its size.
    """

    def __init__(self, site: Site, head: int, size: int) -> None:
        assert site.layer is not None
        super().__init__(Group(f"{site.name}[head {head}]", site.layer, "head"), site.layer)
        self._site = site
        self._inside = slice(head * size, (head + 1) * size)

    def hooks(self, change: Change) -> list[Any]:
        """Sees the head's columns of the input."""

        def begin(module: nn.Module, args: Any) -> Any:
            changed = change(args[0][..., self._inside])
            if changed is None:
                return None
            whole = args[0].clone()
            whole[..., self._inside] = changed
            return (whole, *args[1:])

        return [module.register_forward_pre_hook(begin) for module in (self._site.module, *self._site.shared)]


def find_targets(table: SiteTable, ablate: str) -> list[Target]:
    """Lists what can be removed, by depth.

    Args:
        table: The weights of a model.
        ablate: ``layer``, ``matrix`` (dense matrices of the blocks) or ``head``.

    Raises:
        ValueError: If there is nothing of the kind.
    """
    inside = [site for site in table.sites if site.layer is not None and site.parameter is None]
    found: list[Target] = []
    if ablate == "layer":
        found += [Layer(block, index, table.layers) for index, block in enumerate(table.blocks)]
    elif ablate == "matrix":
        found += [WeightMatrix(site) for site in inside]
    else:
        for site, size in output_projections(inside, table.blocks):
            found += [Head(site, head, size) for head in range(site.shape[1] // size)]
    if not found:
        raise ValueError(f"importance: no {ablate} of this model was recognised; allowed: ablate=layer")
    return found


def output_projections(sites: list[Site], blocks: nn.ModuleList) -> list[tuple[Site, int]]:
    """Finds the matrix behind the heads of each attention module, and the size of a head.

    In a module that states the size of its heads, it is the matrix of kind o; otherwise the last dense one.

    Args:
        sites: The dense matrices of the blocks.
        blocks: The blocks.
    """
    parents = {id(child): parent for block in blocks for parent in block.modules() for child in parent.children()}
    members: dict[int, list[Site]] = {}
    for site in sites:
        members.setdefault(id(parents.get(id(site.module))), []).append(site)
    found = []
    for together in members.values():
        last = next((site for site in together if site.kind == "o"), together[-1])
        parent = parents.get(id(last.module))
        size = next((n for name in HEAD_SIZES if isinstance(n := getattr(parent, name, None), int)), 0)
        if size and last.kind not in INWARD and last.shape[1] % size == 0:
            found.append((last, size))
    return found


def _hidden(args: Any, kwargs: Any) -> Tensor:
    """Picks the hidden states from a block's arguments."""
    return args[0] if args else kwargs["hidden_states"]
