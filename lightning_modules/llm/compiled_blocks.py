"""Blocks of an LLM that are compiled for training alone."""

from __future__ import annotations

import torch
from torch import nn

from ...foundation.decoder import decoder_layers


class CompiledBlocks:
    """The forward passes of an LLM's blocks, compiled; they take the places of the usual ones while a step runs.

    Only the code between a batch and its gradients is compiled. Measurements of importance, evaluations and generation
    find the usual blocks: a tap on a matrix would not be called inside of a compiled block. Nothing is compiled before
    the first step. Blocks are alike, so one is compiled for all, for every length of a batch.

    Args:
        llm: As it is trained, adapters included.
    """

    def __init__(self, llm: nn.Module) -> None:
        self._blocks = list(decoder_layers(llm))
        self._compiled = [torch.compile(block.forward, dynamic=True) for block in self._blocks]

    def begin(self) -> None:
        """Has the blocks run compiled."""
        for block, compiled in zip(self._blocks, self._compiled, strict=True):
            block.forward = compiled

    def end(self) -> None:
        """Has them run as they are written."""
        for block in self._blocks:
            vars(block).pop("forward", None)
