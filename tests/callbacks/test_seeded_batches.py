"""Dropout and masks of a batch are the same whatever a process has done before it, and differ from batch to batch."""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any

import lightning as L
import numpy as np
import pytest
import torch

from textkeep.callbacks import SeededBatches

Draws = list[tuple[float, float, float]]


class Drawing(L.LightningModule):
    """Draws a random number of each kind in each batch."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = torch.nn.Parameter(torch.ones(1))
        self.drawn: Draws = []

    def training_step(self, batch: torch.Tensor, _: int) -> torch.Tensor:
        self.drawn.append((torch.rand(1).item(), float(np.random.rand()), random.random()))
        return self.weight.sum()

    def validation_step(self, batch: torch.Tensor, _: int) -> None:
        torch.rand(3)

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.SGD(self.parameters(), lr=0.1)


def run(folder: Path, steps: int, resume: Path | None = None, **options: Any) -> Draws:
    module = Drawing()
    data: Any = torch.utils.data.DataLoader(torch.zeros(4))  # type: ignore[arg-type]
    quiet = {"logger": False, "enable_progress_bar": False, "enable_model_summary": False, "num_sanity_val_steps": 0}
    settings: dict[str, Any] = {"accelerator": "cpu", "max_steps": steps, "enable_checkpointing": False}
    trainer = L.Trainer(callbacks=[SeededBatches()], **quiet, **settings, **options)
    trainer.fit(module, data, data if options else None, ckpt_path=resume, weights_only=True)
    trainer.save_checkpoint(folder / "end.ckpt")
    return module.drawn


@pytest.mark.filterwarnings("ignore")
def test_a_batch_draws_the_same_numbers_at_one_go_after_a_resume_and_between_validations(tmp_path: Path) -> None:
    L.seed_everything(5)
    whole = run(tmp_path, 8)
    assert len({number for drawn in whole for number in drawn}) == 3 * len(whole)
    torch.rand(7)
    assert run(tmp_path, 8, val_check_interval=2) == whole
    L.seed_everything(5)
    part = run(tmp_path, 4)
    L.seed_everything(6)  # the run keeps the seed of its beginning
    assert part + run(tmp_path, 8, tmp_path / "end.ckpt") == whole
    assert not set(run(tmp_path, 8)) & set(whole)
