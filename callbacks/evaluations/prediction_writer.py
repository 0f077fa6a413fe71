"""Answers of ``textkeep predict`` as a file."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.callbacks import BasePredictionWriter
from lightning.pytorch.trainer.states import TrainerFn
from lightning.pytorch.utilities.rank_zero import rank_zero_info
from typing_extensions import override

from ...evaluation import MODALITIES, qa_match, read_lines
from ...foundation.files import write_json_lines
from ..contract import Batch


class PredictionWriter(BasePredictionWriter):
    """Writes what was asked and what ``predict_step`` returns to ``<run>/<filename>``, one JSON object per line.

    A line has ``id``, ``modality``, ``question``, ``answers``, ``prediction`` and ``correct`` (null for a question
    without answers). Lines stand in the order of the data set, a spoken question before its written twin. Each rank
    writes a part as it goes; rank zero makes the file of them at the end.

    Args:
        filename: Name of the file in the run directory.
    """

    def __init__(self, filename: str = "predictions.jsonl") -> None:
        super().__init__(write_interval="batch")
        self.filename = filename

    def would_lose(self, trainer: Trainer) -> str | None:
        """Names an earlier file: it does not say which checkpoint its answers come from."""
        path = self._path(trainer)
        held = trainer.state.fn == TrainerFn.PREDICTING and path.is_file()
        return f"{path} holds the answers of an earlier prediction" if held else None

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
        batch: Batch,
        batch_idx: int,
        dataloader_idx: int,
    ) -> None:
        rows = [_line(row, example) for row, example in zip(prediction, batch.examples, strict=True)]
        with self._part(trainer, trainer.global_rank).open("a", encoding="utf-8") as file:
            file.writelines(json.dumps(row) + "\n" for row in rows)

    @override
    def on_predict_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        trainer.strategy.barrier("predictions")
        if not trainer.is_global_zero:
            return
        parts = [self._part(trainer, rank) for rank in range(trainer.world_size)]
        rows = [row for part in parts for _, row in read_lines(part)]
        place = {example.id: number for number, example in enumerate(trainer.datamodule.examples("predict"))}  # type: ignore[attr-defined]
        rows.sort(key=lambda row: (place[row["id"]], MODALITIES.index(row["modality"])))
        write_json_lines(rows, self._path(trainer))
        for part in parts:
            part.unlink()
        questions = len({row["id"] for row in rows})
        rank_zero_info(f"answers: {self._path(trainer)} ({questions} of {len(place)} questions, {len(rows)} answers)")

    def _path(self, trainer: Trainer) -> Path:
        return Path(trainer.default_root_dir, self.filename)

    def _part(self, trainer: Trainer, rank: int) -> Path:
        return Path(trainer.default_root_dir, f"{self.filename}.rank{rank}.tmp")


def _line(row: dict[str, str], example: Any) -> dict[str, Any]:
    """Adds to a row of ``predict_step`` what was asked."""
    answers = list(example.answers)
    return {
        "id": row["id"],
        "modality": row["modality"],
        "question": example.question,
        "answers": answers,
        "prediction": row["prediction"],
        "correct": qa_match(row["prediction"], answers) if answers else None,
    }
