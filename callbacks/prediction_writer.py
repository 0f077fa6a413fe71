"""Answers of ``textkeep predict`` as a file."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.callbacks import BasePredictionWriter
from lightning.pytorch.utilities.rank_zero import rank_zero_info
from typing_extensions import override


class PredictionWriter(BasePredictionWriter):
    """Writes what ``predict_step`` returns to ``<run>/<filename>``, a JSON object a line, as it comes.

    Each rank writes a part; rank zero joins them at the end.

    Args:
        filename: Name of the file in the run directory.
    """

    def __init__(self, filename: str = "predictions.jsonl") -> None:
        super().__init__(write_interval="batch")
        self.filename = filename

    @override
    def on_predict_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        part = self._part(trainer, trainer.global_rank)
        part.parent.mkdir(parents=True, exist_ok=True)
        part.write_text("")

    @override
    def write_on_batch_end(
        self,
        trainer: Trainer,
        pl_module: LightningModule,
        prediction: Any,
        batch_indices: Sequence[int] | None,
        batch: Any,
        batch_idx: int,
        dataloader_idx: int,
    ) -> None:
        with self._part(trainer, trainer.global_rank).open("a") as file:
            file.writelines(json.dumps(row, ensure_ascii=False) + "\n" for row in prediction)

    @override
    def on_predict_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        trainer.strategy.barrier("predictions")
        if not trainer.is_global_zero:
            return
        parts = [self._part(trainer, rank) for rank in range(trainer.world_size)]
        with parts[0].open("a") as whole:
            for part in parts[1:]:
                whole.write(part.read_text())
                part.unlink()
        target = Path(trainer.default_root_dir, self.filename)
        parts[0].replace(target)
        rank_zero_info(f"answers: {target}")

    def _part(self, trainer: Trainer, rank: int) -> Path:
        return Path(trainer.default_root_dir, f"{self.filename}.rank{rank}.tmp")
