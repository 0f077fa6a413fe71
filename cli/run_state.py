"""How far a training command got, for the code that ends it."""

from __future__ import annotations

import signal
from dataclasses import dataclass

from lightning.pytorch import Trainer
from lightning.pytorch.utilities.rank_zero import rank_zero_only

from ..callbacks.stopping.stop_signals import STOP_SIGNALS, Wish
from ..runs.directory import RunDirectory
from .run_callback import RunCallback


@dataclass
class RunState:
    """How far a command got; it outlives a LightningCLI that fails while it is built."""

    directory: RunDirectory | None = None
    callback: RunCallback | None = None
    trainer: Trainer | None = None

    @property
    def began(self) -> bool:
        """Whether batches were run."""
        return self.callback is not None and self.callback.began

    def abandon(self) -> None:
        """Cleans up after a command that ends while it waits for other ranks."""
        if self.trainer is not None and self.trainer.strategy.launcher is not None:
            self.trainer.strategy.launcher.kill(signal.SIGTERM)  # ranks that this process has started
        if not self.began and self.directory is not None:
            self.directory.release()

    @property
    def stopped(self) -> Wish:
        """What the ranks agreed to stop for; before they could agree, whether SLURM asked rank zero to requeue."""
        if self.callback is not None and self.callback.stopped:
            return self.callback.stopped
        requeue = STOP_SIGNALS.wish is Wish.REQUEUE and rank_zero_only.rank == 0  # type: ignore[attr-defined]
        return Wish.REQUEUE if requeue else Wish.NONE
