"""Measures the importance that a tuning strategy needs."""

from __future__ import annotations

from contextlib import suppress
from typing import Any

from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.utilities import rank_zero_info
from typing_extensions import override

from ...importance import Snapshot
from ..contract import Batch
from ..stopping.agreed_stop import AgreedStop
from .importance_tracker import ImportanceTracker
from .probing import measure_probe


class TuningImportance(Callback):
    """Gives the tuning strategy the importance that its layer-wise rates or protected weights ask for.

    Before the first step, and every n steps where they want it anew. ``textkeep fit`` adds it where the model's
    tuning needs it; in Python, give it to the Trainer. List it after :class:`ImportanceTracker`: what that has just
    measured on the same probe with the same estimator is used and not measured twice.

    Note:
        It only decides when. The examples of a probe are shared out among the ranks, and all ranks take rank zero's
        result. A resumed run uses the importance in its checkpoint.
    """

    def __init__(self) -> None:
        self._served = -1

    @override
    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        if stage != "fit":
            return
        defined = getattr(getattr(trainer, "datamodule", None), "probes", None) or {}
        for option, user in _users(pl_module).items():
            if user.request is not None and user.request.probe not in defined:
                allowed = ", ".join(defined) or "none: the data module defines no probes"
                raise ValueError(
                    f"model.tuning.{option}: probe {user.request.probe!r} is not in data.probes (allowed: {allowed})"
                )

    @override
    def state_dict(self) -> dict[str, Any]:
        return {"served": self._served}

    @override
    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self._served = state_dict["served"]

    @override
    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        step = trainer.global_step
        again = step != self._served  # what was due at this step may have been cut off
        users = _users(pl_module).items()
        self._serve(
            trainer, pl_module, {name: user for name, user in users if user.waiting or (again and _is_due(user, step))}
        )

    @override
    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Batch, batch_idx: int
    ) -> None:
        step = trainer.global_step
        if step == self._served:  # between the batches of one optimizer step
            return
        with suppress(AgreedStop):  # it comes again in the next hook, when this step has been logged
            users = {name: user for name, user in _users(pl_module).items() if _is_due(user, step)}
            self._serve(trainer, pl_module, users)

    def _serve(self, trainer: Trainer, pl_module: LightningModule, users: dict[str, Any]) -> None:
        for option, user in users.items():
            snapshot = _known(trainer, user.request) or measure_probe(
                trainer, pl_module, user.request.probe, [user.request.estimator], **user.request.options
            )
            user.use(trainer.strategy.broadcast(snapshot))
            origin = f"{user.request.estimator} on {user.request.probe} at step {trainer.global_step}"
            rank_zero_info(f"model.tuning.{option}: {user.describe(snapshot.layers)} ({origin})")
        if users:
            pl_module.apply_layer_rates()  # type: ignore[operator]
        self._served = trainer.global_step


def _users(pl_module: LightningModule) -> dict[str, Any]:
    tuning: Any = pl_module.tuning
    return tuning.importance_users()


def _is_due(user: Any, step: int) -> bool:
    every = user.request.every_n_steps if user.request else 0
    return bool(every and step) and step % every == 0


def _known(trainer: Trainer, request: Any) -> Snapshot | None:
    """Finds what the tracker has just measured, if it is what is needed."""
    for tracker in trainer.callbacks:  # type: ignore[attr-defined]
        snapshot = tracker.latest(request.probe) if isinstance(tracker, ImportanceTracker) else None
        if snapshot is not None and request.estimator in snapshot.estimators:
            options = snapshot.meta["options"]
            if all(options[name] == value for name, value in request.options.items()):
                return snapshot
    return None
