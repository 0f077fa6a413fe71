"""LLaMA-Omni's adaptor."""

from __future__ import annotations

from torch import Tensor, nn

from .adaptor import Adaptor


class ConcatMLP(Adaptor):
    """Concatenated frames, Linear, ReLU, Linear (LLaMA-Omni, arXiv 2409.06666, after SLAM-LLM's projector).

    Trailing frames that do not fill a stack are dropped, as in LLaMA-Omni's code.

    Args:
        stack: Frames per position; 5 of Whisper's give 10 positions per second.
        hidden: Width of the hidden layer.
    """

    keeps_incomplete_stack = False

    def __init__(self, stack: int = 5, hidden: int = 2048) -> None:
        super().__init__(stack)
        self.hidden = hidden

    def build(self, input_dim: int, output_dim: int) -> None:
        """Creates the two layers."""
        self.input = nn.Linear(self.stack * input_dim, self.hidden)
        self.output = nn.Linear(self.hidden, output_dim)

    def project(self, stacked: Tensor, lengths: Tensor) -> Tensor:
        """Maps (N, P, stack * D) to (N, P, H)."""
        return self.output(nn.functional.relu(self.input(stacked)))
