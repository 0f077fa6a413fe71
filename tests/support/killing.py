"""A callback that ends its own process as ``kill -9`` does."""

from __future__ import annotations

import os
import signal
from typing import Any

from lightning.pytorch import Callback, LightningModule, Trainer

KILL_AT = "TEXTKEEP_TEST_KILL_AT"


class KillAt(Callback):
    """Kills rank zero's process at the beginning of the step that the environment names; it may name none."""

    def on_train_batch_start(self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int) -> None:
        if trainer.is_global_zero and os.environ.get(KILL_AT) == str(trainer.global_step):
            os.kill(os.getpid(), signal.SIGKILL)
