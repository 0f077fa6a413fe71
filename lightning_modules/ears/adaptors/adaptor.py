"""The contract of an adaptor."""

from __future__ import annotations

from abc import ABC, abstractmethod
from functools import partial
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from ...precision import at_least_float32

if TYPE_CHECKING:
    from collections.abc import Callable


def ceil_division(length: int, stack: int) -> int:
    """Counts the positions of a clip if the last, incomplete stack is zero-padded; at least one."""
    return max(-(-length // stack), 1)


def floor_division(length: int, stack: int) -> int:
    """Counts the positions of a clip if trailing frames that do not fill a stack are dropped; at least one."""
    return max(length // stack, 1)


class Adaptor(nn.Module, ABC):
    """Maps encoder frames (N, T, D) to LLM input embeddings (N, P, H), ``stack`` frames per position.

    The widths are known only once encoder and LLM are: :meth:`build` creates the layers.

    Args:
        stack: Encoder frames per LLM position.
    """

    #: Whether an incomplete last stack is kept (zero-padded) or dropped.
    keeps_incomplete_stack = True
    #: The layer whose output is scaled by :meth:`scale_output_to`.
    output: nn.Linear

    def __init__(self, stack: int) -> None:
        super().__init__()
        if stack < 1:
            raise ValueError(f"{type(self).__name__}: stack is {stack}, but must be at least 1")
        self.stack = stack

    @abstractmethod
    def build(self, input_dim: int, output_dim: int) -> None:
        """Creates the layers for frames of width ``input_dim`` and an LLM of width ``output_dim``."""

    @abstractmethod
    def project(self, stacked: Tensor, lengths: Tensor) -> Tensor:
        """Maps stacked frames (N, P, stack * D), of which ``lengths`` (N,) are real, to (N, P, H)."""

    def length_rule(self) -> Callable[[int], int]:
        """Returns a picklable function from the number of frames to the number of positions."""
        rule = ceil_division if self.keeps_incomplete_stack else floor_division
        return partial(rule, stack=self.stack)

    def forward(self, frames: Tensor, lengths: Tensor) -> tuple[Tensor, Tensor]:
        """Stacks and projects.

        Args:
            frames: (N, T, D), zero beyond each clip's length.
            lengths: (N,) true numbers of frames.

        Returns:
            Embeddings (N, P, H) and true lengths (N,), each at least 1.
        """
        rule = self.length_rule()
        positions = rule(frames.shape[1])
        missing = positions * self.stack - frames.shape[1]
        if missing > 0:
            frames = nn.functional.pad(frames, (0, 0, 0, missing))
        stacked = frames[:, : positions * self.stack].reshape(frames.shape[0], positions, -1)
        incomplete = self.stack - 1 if self.keeps_incomplete_stack else 0
        out_lengths = ((lengths + incomplete) // self.stack).clamp(min=1)
        return self.project(stacked, out_lengths), out_lengths

    @torch.no_grad()
    def scale_output_to(self, norm: float, frames: Tensor) -> None:
        """Scales the output layer so that its outputs start at the LLM's own embedding norm.

        A frozen LLM has only ever seen inputs of that size; outputs ten times larger or smaller take hundreds of steps
        to repair, and disturb its first attention layers in the meantime.

        Args:
            norm: Mean L2 norm of the LLM's text embeddings.
            frames: Any realistic frames (N, T, D).
        """
        lengths = torch.full((frames.shape[0],), frames.shape[1], device=frames.device)
        found = self(frames.to(self.output.weight.dtype), lengths)[0]
        current = at_least_float32(found).norm(dim=-1).mean()
        self.output.weight.mul_(norm / current)
        if self.output.bias is not None:
            self.output.bias.mul_(norm / current)
