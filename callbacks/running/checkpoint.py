"""Checkpoints in the run directory."""

from __future__ import annotations

import os
from datetime import timedelta
from pathlib import Path
from typing import Literal

from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.callbacks import ModelCheckpoint
from lightning.pytorch.utilities.exceptions import SIGTERMException
from lightning.pytorch.utilities.rank_zero import rank_zero_info
from typing_extensions import override

from ...foundation.run_names import CHECKPOINTS


class RunCheckpoint(ModelCheckpoint):
    """Lightning's ``ModelCheckpoint`` with the defaults of a run directory.

    Files are ``<run>/checkpoints/step=000120.ckpt``; ``last.ckpt`` is a link to the newest. The last step is always
    saved; Ctrl-C and SIGTERM leave a checkpoint too.

    Args:
        every_n_train_steps: Optimizer steps between two checkpoints. ``None`` saves after each validation.
        train_time_interval: Time between two checkpoints, instead of steps.
        monitor: Metric that decides which ``save_top_k`` are kept, for example ``val/speech_ce``.
        mode: ``min`` or ``max``: whether the best ``monitor`` is the lowest or the highest.
        save_top_k: Files kept: 1 the newest (with ``monitor``, the best), -1 all. A checkpoint of a fully tuned model
            takes three times the model's fp32 size (weights and Adam's two moments).
        save_weights_only: Leave out the optimizer's state. Such a file cannot be continued from.
        save_last: ``link`` points ``last.ckpt`` to the newest file; true writes it a second time; false leaves it out.
        dirpath: Another folder than ``<run>/checkpoints``.
    """

    def __init__(
        self,
        every_n_train_steps: int | None = None,
        train_time_interval: timedelta | None = None,
        monitor: str | None = None,
        mode: Literal["min", "max"] = "min",
        save_top_k: int = 1,
        save_weights_only: bool = False,
        save_last: bool | Literal["link"] = "link",
        dirpath: str | Path | None = None,
    ) -> None:
        super().__init__(
            dirpath=dirpath,
            filename="step={step:06d}",
            auto_insert_metric_name=False,
            monitor=monitor,
            mode=mode,
            save_last=save_last,
            save_top_k=save_top_k,
            save_weights_only=save_weights_only,
            save_on_exception=True,
            every_n_train_steps=every_n_train_steps,
            train_time_interval=train_time_interval,
            # A run directory belongs to one run, and a resumed run overwrites its own file instead of numbering it.
            enable_version_counter=False,
        )

    @override
    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        if self.dirpath is None:
            self.dirpath = os.path.join(os.path.abspath(trainer.default_root_dir), CHECKPOINTS)
        super().setup(trainer, pl_module, stage)

    @override
    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        # Lightning leaves the steps after the last validation out of every file.
        if not self._should_skip_saving_checkpoint(trainer) and self.save_top_k != 0:
            self._save_now(trainer)

    @override
    def on_exception(self, trainer: Trainer, pl_module: LightningModule, exception: BaseException) -> None:
        # Saving is collective. An error of one rank finds the others in another collective: it would hang them.
        together = isinstance(exception, KeyboardInterrupt | SIGTERMException)
        if self._should_save_on_exception(trainer) and (together or trainer.world_size == 1):
            self._save_now(trainer)
            rank_zero_info(f"saved {self._last_checkpoint_saved}; --ckpt_path last continues from it")

    def _save_now(self, trainer: Trainer) -> None:
        """Saves the present state whatever the schedule and the monitored metric say."""
        metrics = self._monitor_candidates(trainer)
        if self.monitor is None and self.save_top_k != 0:
            self._save_topk_checkpoint(trainer, metrics)
        else:
            self._save_checkpoint(trainer, self.format_checkpoint_name(metrics))
        self._save_last_checkpoint(trainer, metrics)
