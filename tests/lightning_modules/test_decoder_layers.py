"""The decoder layers of hybrids, whose blocks are of several classes, are the ones that are measured."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from textkeep.foundation.decoder import decoder_layers, find_blocks

from ..importance.families import SETTINGS, SIZES, architecture, configuration

HYBRIDS = {
    "bamba": "model.layers",
    "falcon_h1": "model.layers",
    "granitemoehybrid": "model.layers",
    "jamba": "model.layers",
    "lfm2": "model.layers",
    "nemotron_h": "model.layers",
    "olmo_hybrid": "model.layers",
    "qwen3_next": "model.layers",
    "recurrent_gemma": "model.layers",
    "zamba": "model.layers",
    "zamba2": "model.layers",
}


@pytest.mark.parametrize("kind", HYBRIDS)
def test_hybrids(kind: str) -> None:
    config = configuration(kind)
    with torch.device("meta"):
        model = architecture(kind, config)(config)
    layers = decoder_layers(model)
    assert layers is model.get_submodule(HYBRIDS[kind])
    assert layers is find_blocks(model)[1]
    if kind != "nemotron_h":  # its layers follow from a pattern
        assert len(layers) == SETTINGS.get(kind, {}).get("num_hidden_layers", SIZES["num_hidden_layers"])


class Mixture(nn.Module):
    """Two blocks with large fused experts and small matrices, beside a tower of many matrices."""

    def __init__(self) -> None:
        super().__init__()
        self.tower = nn.ModuleList([nn.Linear(8, 8) for _ in range(6)])
        self.layers = nn.ModuleList([nn.Linear(8, 8) for _ in range(2)])
        for block in self.layers:
            block.experts = nn.Parameter(torch.zeros(16, 8, 8))


def test_experts_count_though_they_are_no_linear_layers() -> None:
    model = Mixture()
    assert decoder_layers(model) is model.layers


def test_a_model_without_blocks_is_refused() -> None:
    with pytest.raises(ValueError, match="no decoder layers found in Linear"):
        decoder_layers(nn.Linear(2, 2))
