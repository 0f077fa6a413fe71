"""Says in a job's log what a run is doing, so that a test can send a signal at that moment."""

from __future__ import annotations

from typing import Any

from lightning.pytorch import Callback, LightningModule, Trainer
from typing_extensions import override


class PhaseLog(Callback):
    """Prints ``phase: step 7`` and ``phase: validation 5`` on rank 0, when they begin."""

    @override
    def on_train_batch_start(self, trainer: Trainer, *args: Any) -> None:
        _tell(trainer, f"step {trainer.global_step + 1}")

    @override
    def on_validation_batch_start(
        self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int, dataloader_idx: int = 0
    ) -> None:
        if batch_idx == 0 and dataloader_idx == 0:
            _tell(trainer, f"validation {trainer.global_step}")

    @override
    def on_save_checkpoint(self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]) -> None:
        _tell(trainer, f"saving {trainer.global_step}")


def _tell(trainer: Trainer, what: str) -> None:
    if trainer.is_global_zero:
        print(f"phase: {what}", flush=True)
