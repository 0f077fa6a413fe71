"""Lightning's fit loops, made to continue after the hook in which a checkpoint was written.

A checkpoint of a step is written in ``on_train_batch_end``. After it the step is logged and validated, and if it is the
last of an epoch, the epoch is ended. Lightning continues with the next batch: what a process had no time for is left
out.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from lightning.pytorch import Trainer
from lightning.pytorch.loops.fetchers import _DataFetcher
from lightning.pytorch.loops.fit_loop import _FitLoop
from lightning.pytorch.loops.training_epoch_loop import _TrainingEpochLoop
from torch import Tensor


@dataclass(frozen=True)
class RestOfStep:
    """What of a step is still to come.

    Attributes:
        row: Metrics of the step that are not logged yet.
        validates: Whether a validation belongs to it that has not come to its end.
        read_before: Validation batches of the epoch before that validation, whether it had begun or not.
    """

    row: Mapping[str, float]
    validates: bool
    read_before: int = 0


class ExactFitLoop(_FitLoop):
    """Takes up the rest of the step first, where there is one, also if no further step is wanted.

    Attributes:
        owed: What of the step is still to come after a resume.
        validated: Training batches, over all epochs, at the last validation that came to its end.
        logged: Training batches, over all epochs, at the last step that was logged before its time.
        began: Training batches, over all epochs, and validation batches of the epoch when the last validation began.
    """

    owed: RestOfStep | None = None
    validated: int = 0
    logged: int = 0
    began: tuple[int, int] = (-1, 0)

    def on_load_checkpoint(self, state_dict: dict[str, Any]) -> None:
        """Has the data loader made anew, at the place that the checkpoint tells.

        Where ``max_epochs`` says how long the run is, the optimizer's schedule has asked for it before, and Lightning
        would leave it at the first batch.
        """
        super().on_load_checkpoint(state_dict)
        self._combined_loader = None

    @property
    def skip(self) -> bool:
        """Whether there is nothing to do; the end of a run that was cut off is something."""
        if self.owed is None:
            return super().skip
        return self.max_batches == 0 or self.trainer.limit_train_batches == 0

    @property
    def done(self) -> bool:
        """Whether the loop is to be left."""
        return self.owed is None and super().done

    def reset(self) -> None:
        """Lets the batch count as completed, which makes Lightning stay in its epoch."""
        if self.owed is not None:
            progress: Any = self.epoch_loop.batch_progress
            for counters in (progress.current, progress.total):
                counters.completed = counters.processed
        super().reset()

    def on_advance_end(self) -> None:
        """Ends the epoch; metrics are there, so that schedulers which follow them can be stepped."""
        self._restarting = False
        super().on_advance_end()

    def rest_of_step(self) -> RestOfStep | None:
        """Returns what remains of the current step; None if it is over, or inside a step."""
        loop, progress = self.epoch_loop, self.epoch_loop.batch_progress
        trained = 0 < progress.current.ready == progress.current.processed  # type: ignore[attr-defined]
        if not trained or loop._batches_that_stepped == loop.global_step:
            return None
        assert self._data_fetcher is not None
        step, before = self.began
        cut_off = step == progress.total.ready
        read = before if cut_off else loop.val_loop.batch_progress.total.ready
        return RestOfStep(self._row(), loop._should_check_val_fx(self._data_fetcher), read)

    def log_step(self, row: Mapping[str, float]) -> None:
        """Logs a step before Lightning would."""
        if row:
            metrics: Any = dict(row)
            self.trainer._logger_connector.log_metrics(metrics)
            self.logged = self.epoch_loop.batch_progress.total.ready

    @property
    def since_validation(self) -> float | None:
        """Seconds since the last validation, where validations come by time; else None."""
        trainer: Any = self.trainer
        return None if trainer._val_check_time_interval is None else time.monotonic() - trainer._last_val_time

    @since_validation.setter
    def since_validation(self, seconds: float | None) -> None:
        trainer: Any = self.trainer
        if seconds is not None and trainer._val_check_time_interval is not None:
            trainer._last_val_time = time.monotonic() - seconds

    def _row(self) -> dict[str, float]:
        """Returns what Lightning will log of the current step when ``on_train_batch_end`` is over."""
        progress, connector = self.epoch_loop.batch_progress, self.trainer._logger_connector
        over = progress.total.completed == progress.total.ready or self.logged == progress.total.ready
        if over or not self.trainer.training or not connector.should_update_logs:
            return {}
        return {k: v.item() if isinstance(v, Tensor) else v for k, v in connector.metrics["log"].items()}


class ExactEpochLoop(_TrainingEpochLoop):
    """Does the rest of the step as if the batch had just been trained on."""

    @property
    def done(self) -> bool:
        """Whether the loop is to be left."""
        return exact_loop(self.trainer).owed is None and super().done

    def advance(self, data_fetcher: _DataFetcher) -> None:
        """Trains on a batch, or logs the step whose batch was trained on before; ``on_advance_end`` validates then."""
        loop = exact_loop(self.trainer)
        rest, loop.owed = loop.owed, None
        if rest is None:
            super().advance(data_fetcher)
            return
        self.val_loop.restarting = False  # a validation is done whole
        if rest.validates:  # undo Lightning's counts of one that was cut off
            total: Any = self.val_loop.batch_progress.total
            total.ready = total.started = total.processed = total.completed = rest.read_before
        self._skip_next_val = not rest.validates
        loop.log_step(rest.row)

    def _should_check_val_fx(self, data_fetcher: _DataFetcher) -> bool:
        validated = exact_loop(self.trainer).validated
        return self.batch_progress.total.ready > validated and super()._should_check_val_fx(data_fetcher)


def make_exact(trainer: Trainer) -> None:
    """Turns the loops of a Trainer into exact ones; their state, and what refers to them, stays."""
    loop: Any = trainer.fit_loop
    loop.__class__, loop.epoch_loop.__class__ = ExactFitLoop, ExactEpochLoop
    loop.owed, loop.validated, loop.logged, loop.began = None, 0, 0, (-1, 0)


def exact_loop(trainer: Trainer) -> ExactFitLoop:
    """Returns the exact loop of a Trainer."""
    assert isinstance(trainer.fit_loop, ExactFitLoop)
    return trainer.fit_loop
