"""The progress bar of a terminal."""

from __future__ import annotations

import math
from typing import Any

from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.callbacks import RichProgressBar
from lightning.pytorch.trainer.states import TrainerFn
from typing_extensions import override

from ...foundation.run_names import stage_key
from .untold import of_a_step, shown, untold


class RunProgressBar(RichProgressBar):
    """Lightning's ``RichProgressBar``, with the optimizer step out of all, and only the step's own figures."""

    @override
    def get_metrics(self, trainer: Trainer, pl_module: LightningModule) -> dict[str, Any]:
        metrics = super().get_metrics(trainer, pl_module)
        if trainer.state.fn != TrainerFn.FITTING:
            return {key: value for key, value in metrics.items() if key != "v_num"}
        last = trainer.estimated_stepping_batches
        step = f"{trainer.global_step}" if math.isinf(last) else f"{trainer.global_step}/{last}"
        return {"step": step, **{key: value for key, value in metrics.items() if of_a_step(key)}}

    @override
    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        super().on_validation_end(trainer, pl_module)
        if trainer.state.fn == TrainerFn.VALIDATING and (figures := untold(trainer, stage_key("val", ""))):
            self.print("validated", shown(figures))

    @override
    def on_test_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        super().on_test_end(trainer, pl_module)
        if figures := untold(trainer, stage_key("test", "")):
            self.print("tested", shown(figures))

    @override
    def _get_train_description(self, current_epoch: int) -> str:
        last = self.trainer.max_epochs
        # Lightning writes "Epoch 0/-2" where the steps and not the epochs are limited.
        text = f"Epoch {current_epoch}" + (f"/{last - 1}" if last is not None and last > 0 else "")
        return text.ljust(len(self.validation_description))  # of one width, so that the lines do not jump
