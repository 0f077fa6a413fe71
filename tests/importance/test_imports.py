"""The engine alone: a measurement of a plain torch module loads no framework."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]
CODE = """
import sys
from pathlib import Path

import torch
from torch import nn

from textkeep.importance import Snapshot, compare, probe


class Decoder(nn.Module):
    def __init__(self):
        super().__init__()
        self.words = nn.Embedding(31, 8)
        self.layers = nn.ModuleList(nn.Sequential(nn.Linear(8, 16), nn.Tanh(), nn.Linear(16, 8)) for _ in range(2))
        self.head = nn.Linear(8, 31)

    def forward(self, input_ids):
        x = self.words(input_ids).cumsum(1)
        for block in self.layers:
            x = x + block(x)
        return self.head(x)


ids = torch.arange(24).view(3, 8) % 31
batch = {"input_ids": ids, "labels": ids}
snapshot = probe(Decoder(), [batch], top_fraction=0.05)
loaded = Snapshot.load(snapshot.save(Path(sys.argv[1]) / "snapshot"))
assert loaded.matrices("taylor") == snapshot.matrices("taylor")
foreign = {"lightning", "wandb", "transformers", "peft", "jsonargparse", "matplotlib", "pandas"} & set(sys.modules)
assert not foreign, foreign
ours = {name.split(".")[1] for name in sys.modules if name.startswith("textkeep.")}
assert ours == {"foundation", "importance"}, ours
"""


def test_the_engine_needs_torch_alone(tmp_path: Path) -> None:
    environment = {**os.environ, "PYTHONPATH": f"{ROOT}{os.pathsep}{os.environ.get('PYTHONPATH', '')}"}
    command = [sys.executable, "-c", CODE, str(tmp_path)]
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
