"""Keeps a clip's frames independent of the padding that its neighbours in a batch require."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, cast

import torch
from torch import Tensor, nn

from .speech_encoder import frame_mask


class RealFrames:
    """Knows which frames of the current batch are real, for layers that would look beyond a clip's end.

    Attributes:
        lengths: (N,) real frames of each clip while a batch is encoded, otherwise None.
    """

    def __init__(self) -> None:
        self.lengths: Tensor | None = None

    @contextmanager
    def of(self, lengths: Tensor) -> Iterator[None]:
        """Holds a batch's lengths within the context."""
        self.lengths = lengths
        try:
            yield
        finally:
            self.lengths = None

    def hide_padding(self, layer: nn.Module, inputs: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        """Shows a convolution over (N, C, T) zeros beyond a clip's end, as when the clip is alone (a pre-hook)."""
        if self.lengths is None:
            return inputs
        return inputs[0] * frame_mask(self.lengths, inputs[0].shape[-1])[:, None], *inputs[1:]


class RealGroupNorm(nn.GroupNorm):
    """Group norm of (N, C, T) with the statistics of each clip's real frames only.

    ``torch.nn.GroupNorm`` includes the padding, so that a clip next to a longer one comes out louder. If all clips are
    as long as the batch, the two agree bit for bit.

    Args:
        norm: The layer that it replaces; its weights are shared.
        real: Knows the clips' lengths.
    """

    def __init__(self, norm: nn.GroupNorm, real: RealFrames) -> None:
        super().__init__(norm.num_groups, norm.num_channels, norm.eps, norm.affine, device="meta")
        self.weight, self.bias = norm.weight, norm.bias
        self.real = real

    def forward(self, hidden: Tensor) -> Tensor:
        """Maps (N, C, T) to (N, C, T); values beyond a clip's end are meaningless."""
        lengths = self.real.lengths
        if lengths is None or bool((lengths >= hidden.shape[-1]).all()):
            return super().forward(hidden)
        grouped = hidden.float() if hidden.dtype in (torch.float16, torch.bfloat16) else hidden
        grouped = grouped.unflatten(1, (self.num_groups, -1))  # (N, G, C / G, T)
        mask = frame_mask(lengths, hidden.shape[-1])[:, None, None]
        count = (lengths * grouped.shape[2])[:, None, None, None]
        mean = (grouped * mask).sum(dim=(2, 3), keepdim=True) / count
        variance = ((grouped - mean).square() * mask).sum(dim=(2, 3), keepdim=True) / count
        normed = ((grouped - mean) * torch.rsqrt(variance + self.eps)).flatten(1, 2)
        scaled = normed * self.weight[:, None] + self.bias[:, None] if self.affine else normed
        # Like torch's own: in float32 under autocast, else in the type of the input.
        return scaled if torch.is_autocast_enabled(hidden.device.type) else scaled.to(hidden.dtype)


def watch_first_norm(net: Any, real: RealFrames) -> None:
    """Puts a :class:`RealGroupNorm` into a wav2vec 2.0 feature extractor that has a group norm."""
    first = net.feature_extractor.conv_layers[0]
    if isinstance(getattr(first, "layer_norm", None), nn.GroupNorm):
        first.layer_norm = RealGroupNorm(first.layer_norm, real)


def watch_convolutions(encoder: nn.Module, real: RealFrames) -> None:
    """Hides the padding from every convolution over time behind the feature extractor (positions, Conformer)."""
    for layer in encoder.modules():
        if isinstance(layer, nn.Conv1d) and cast(tuple[int, ...], layer.kernel_size)[0] > 1:
            layer.register_forward_pre_hook(real.hide_padding)
