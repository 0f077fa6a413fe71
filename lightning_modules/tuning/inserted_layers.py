"""Inserts decoder layers that initially do nothing into a causal LM, and removes them again."""

from __future__ import annotations

import copy
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from ...foundation.decoder import KIND_NAMES, decoder_layers

LAST_IN_BRANCH = {*KIND_NAMES["o"], *KIND_NAMES["down"], "c_proj", "dense"}
"""Names of the matrices that end a residual branch; ``c_proj`` is GPT-2's, ``dense`` GPT-NeoX's and Falcon's."""
MARK = "inserted"
"""Attribute of an inserted layer."""


@dataclass
class Layout:
    """The decoder layers of an LLM, and its per-layer config values.

    Attributes:
        blocks: The layers, first to last.
        listed: Names in the config -> a value for each layer (``layer_types``, ...).
    """

    blocks: list[nn.Module]
    listed: dict[str, list[Any]]

    @classmethod
    def of(cls, llm: Any) -> Layout:
        """Reads the current layout of an LLM."""
        blocks = list(decoder_layers(llm))
        values = vars(llm.config).items()
        listed = {
            name: list(value)
            for name, value in values
            if "layer" in name and isinstance(value, list) and len(value) == len(blocks)
        }
        return cls(blocks, listed)

    def take(self, picks: Sequence[tuple[int, nn.Module]]) -> Layout:
        """Builds a layout from some of these layers, or from others in their places.

        Args:
            picks: For each layer, the index in this layout whose config values it takes, and the layer itself.
        """
        listed = {name: [values[index] for index, _ in picks] for name, values in self.listed.items()}
        return Layout([block for _, block in picks], listed)

    def apply(self, llm: Any) -> None:
        """Installs these layers in an LLM; attention finds its own place in the KV cache."""
        layers = decoder_layers(llm)
        del layers[:]
        layers.extend(self.blocks)
        llm.config.num_hidden_layers = len(self.blocks)
        for name, values in self.listed.items():
            setattr(llm.config, name, list(values))
        for index, block in enumerate(self.blocks):
            for module in block.modules():
                attention: Any = module
                if isinstance(getattr(attention, "layer_idx", None), int):
                    attention.layer_idx = index


def insert_layers(llm: Any, after: Sequence[int]) -> None:
    """Inserts copies of decoder layers that add nothing: the last matrix of each residual branch is zero.

    Args:
        llm: A causal LM; keeps its class.
        after: Indices of the layers to copy; each copy follows its original.

    Raises:
        ValueError: If the layers change the LLM's output.
    """
    device = next(llm.parameters()).device
    ids = torch.arange(8, device=device)[None] % llm.config.vocab_size
    before = _answer(llm, ids)
    layout = Layout.of(llm)
    picks: list[tuple[int, nn.Module]] = []
    for index, block in enumerate(layout.blocks):
        picks.append((index, block))
        if index in after:
            picks.append((index, _identity(block, llm.config)))
    layout.take(picks).apply(llm)
    if not torch.equal(_answer(llm, ids), before):
        layout.apply(llm)
        raise ValueError(
            f"DepthUpScaling: {type(llm).__name__} changes its answer when copies of its layers are inserted with "
            f"{', '.join(sorted(LAST_IN_BRANCH))} zero: its residual branches end in other modules"
        )


def inserted_layers(llm: nn.Module) -> list[nn.Module]:
    """Lists the inserted decoder layers."""
    return [block for block in decoder_layers(llm) if getattr(block, MARK, False)]


def remove_layers(llm: Any) -> None:
    """Removes the inserted layers permanently, which restores the original LLM bit for bit."""
    _without(Layout.of(llm)).apply(llm)


@contextmanager
def removed_layers(llm: Any) -> Iterator[None]:
    """Removes the inserted layers within the context."""
    layout = Layout.of(llm)
    _without(layout).apply(llm)
    try:
        yield
    finally:
        layout.apply(llm)


def _without(layout: Layout) -> Layout:
    return layout.take([(i, block) for i, block in enumerate(layout.blocks) if not getattr(block, MARK, False)])


def _identity(block: nn.Module, config: Any) -> nn.Module:
    made = copy.deepcopy(block, {id(config): config})
    setattr(made, MARK, True)
    for name, module in made.named_modules():
        if name.rsplit(".", 1)[-1] in LAST_IN_BRANCH:
            for parameter in module.parameters():
                nn.init.zeros_(parameter)
    return made


@torch.no_grad()
def _answer(llm: Any, ids: torch.Tensor) -> torch.Tensor:
    modes = [(module, module.training) for module in llm.modules()]
    llm.eval()
    logits = llm(input_ids=ids, use_cache=False).logits
    for module, mode in modes:
        module.training = mode
    return logits
