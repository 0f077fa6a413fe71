"""Blocks are freed or kept after their forward pass, as they were asked to, whatever was gathered meanwhile."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import Tensor, distributed, nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.tensor import DTensor

from textkeep.foundation.sharding import gathered
from textkeep.lightning_modules.sharding.blocks import shard


class Tower(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.ModuleList(nn.Linear(4, 4) for _ in range(3))

    def forward(self, hidden: Tensor) -> Tensor:
        for layer in self.layers:
            hidden = layer(hidden)
        return hidden


class Root(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.tower = Tower()

    def forward(self, hidden: Tensor) -> Tensor:
        return self.tower(hidden)


@pytest.mark.parametrize("freed", [True, False])
def test_blocks_are_freed_after_forward_as_asked_also_after_a_measurement(freed: bool, tmp_path: Path) -> None:
    distributed.init_process_group("gloo", init_method=f"file://{tmp_path / 'store'}", rank=0, world_size=1)
    try:
        root = Root()
        before = {name: value.detach().clone() for name, value in root.named_parameters()}
        shard(root, [root.tower], init_device_mesh("cpu", (1,)), torch.device("cpu"), None, freed)
        for _ in range(2):
            out = root(torch.ones(1, 4))
            assert isinstance(root.tower.layers[0].weight, DTensor) == freed
            out.sum().backward()
            with gathered(root):
                pass
        for name, value in root.named_parameters():
            assert torch.equal(value.full_tensor(), before[name])  # type: ignore[operator]
    finally:
        distributed.destroy_process_group()
