"""Ultravox's adaptor."""

from __future__ import annotations

from torch import Tensor, nn

from .adaptor import Adaptor


class StackSwiGLU(Adaptor):
    """Stacked frames, RMSNorm, Linear, SwiGLU, Linear, RMSNorm (ultravox's projector, github fixie-ai/ultravox).

    Args:
        stack: Frames per position; 8 of Whisper's give 6.25 positions per second.
        hidden: Width of the first Linear; SwiGLU halves it.
    """

    def __init__(self, stack: int = 8, hidden: int = 2048) -> None:
        super().__init__(stack)
        if hidden % 2:
            raise ValueError(
                f"StackSwiGLU: hidden is {hidden}, but SwiGLU splits it in two halves: take an even number"
            )
        self.hidden = hidden

    def build(self, input_dim: int, output_dim: int) -> None:
        """Creates norms and layers."""
        self.norm_in = nn.RMSNorm(self.stack * input_dim, eps=1e-6)
        self.input = nn.Linear(self.stack * input_dim, self.hidden, bias=False)
        self.norm_mid = nn.RMSNorm(self.hidden // 2, eps=1e-6)
        self.output = nn.Linear(self.hidden // 2, output_dim, bias=False)

    def project(self, stacked: Tensor, lengths: Tensor) -> Tensor:
        """Maps (N, P, stack * D) to (N, P, H)."""
        value, gate = self.input(self.norm_in(stacked)).chunk(2, dim=-1)
        return self.output(self.norm_mid(nn.functional.silu(gate) * value))
