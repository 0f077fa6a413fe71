"""An adaptor whose positions attend to the whole clip."""

from __future__ import annotations

from torch import Tensor, nn

from ..encoders.speech_encoder import frame_mask
from .adaptor import Adaptor


class StackTransformer(Adaptor):
    """Stacked frames, Linear, pre-norm Transformer layers, LayerNorm, Linear.

    An MLP over stacked frames must recognise a sub-word from a fifth of a second; a few self-attention layers let each
    position see its whole word. The encoder's frames carry position information, so no position embeddings are added.

    Args:
        stack: Frames per position; 4 of Whisper's give 12.5 positions per second.
        width: Of the Transformer.
        layers: Transformer layers.
        heads: Attention heads.
        dropout: In the Transformer layers.
    """

    def __init__(self, stack: int = 4, width: int = 384, layers: int = 4, heads: int = 6, dropout: float = 0.0) -> None:
        super().__init__(stack)
        if width % heads:
            raise ValueError(f"StackTransformer: width {width} is not divisible by heads {heads}")
        self.width, self.layers, self.heads, self.dropout = width, layers, heads, dropout

    def build(self, input_dim: int, output_dim: int) -> None:
        """Creates the layers."""
        self.input = nn.Linear(self.stack * input_dim, self.width)
        layer = nn.TransformerEncoderLayer(
            self.width,
            self.heads,
            4 * self.width,
            dropout=self.dropout,
            activation="gelu",
            batch_first=True,
            norm_first=True,
        )
        self.transformer = nn.TransformerEncoder(
            layer, self.layers, norm=nn.LayerNorm(self.width), enable_nested_tensor=False
        )
        self.output = nn.Linear(self.width, output_dim)

    def project(self, stacked: Tensor, lengths: Tensor) -> Tensor:
        """Maps (N, P, stack * D) to (N, P, H); each position attends to its clip's real positions."""
        padding = ~frame_mask(lengths, stacked.shape[1])
        return self.output(self.transformer(self.input(stacked), src_key_padding_mask=padding))
