"""A callback with which a rank fails, to be named in a config."""

from __future__ import annotations

import os
import signal
import time
from datetime import timedelta
from typing import Any

from lightning.pytorch import Callback, LightningModule, Trainer
from torch.distributed import distributed_c10d

from textkeep.foundation.errors import UserError


class FailAtStep(Callback):
    """Ends ranks in the middle of a step.

    Args:
        ranks: Which.
        how: ``refuse`` raises a UserError, ``defect`` a TypeError, ``kill`` is SIGKILL, ``late`` waits.
        at: The step.
    """

    def __init__(self, ranks: list[int], how: str, at: int = 2) -> None:
        self.ranks, self.how, self.at = ranks, how, at

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if self.how == "late":  # from now on: to begin with, ranks may take longer
            distributed_c10d._set_pg_timeout(timedelta(seconds=4))

    def on_before_zero_grad(self, trainer: Trainer, pl_module: LightningModule, optimizer: Any) -> None:
        if trainer.global_step < self.at or trainer.global_rank not in self.ranks:
            return
        if self.how == "kill":
            os.kill(os.getpid(), signal.SIGKILL)
        if self.how == "late":
            time.sleep(60)
        raise UserError("clip 7 is damaged") if self.how == "refuse" else TypeError("a defect")
