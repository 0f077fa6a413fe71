"""The examples that were left out, counted over all ranks."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from typing import Any, Protocol, runtime_checkable

from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.utilities import rank_zero_info
from typing_extensions import override

from ...foundation.ranks import Ranks
from ...foundation.run_names import SKIPPED


@runtime_checkable
class LeavesOut(Protocol):
    """What is needed of the data."""

    @property
    def left_out(self) -> Mapping[str, str]:
        """The examples left out so far on this rank: place -> reason."""
        ...


class SkippedExamples(Callback):
    """Logs how many examples were left out so far, as ``data/skipped``, and says at the end why.

    A clip that cannot be read is met by one rank alone. So the ranks tell each other at places where all of them are:
    at steps that are logged, and after each validation, test and epoch. An example counts once, however often and on
    however many ranks it is met; a continued run counts on.

    Attributes:
        known: Place -> reason, of all ranks up to the last of these places.
    """

    def __init__(self) -> None:
        self.known: dict[str, str] = {}
        self._last_step = -1
        self._logged = 0

    @override
    def state_dict(self) -> dict[str, Any]:
        return {"known": dict(self.known)}

    @override
    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self.known = dict(state_dict["known"])
        self._logged = len(self.known)

    @override
    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._last_step = trainer.global_step
        self._agree(trainer)

    @override
    def on_train_batch_end(self, trainer: Trainer, *args: Any) -> None:
        step = trainer.global_step
        if step != self._last_step and step % max(trainer.log_every_n_steps, 1) == 0:  # type: ignore[attr-defined]
            self._agree(trainer)
        self._last_step = step

    @override
    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._agree(trainer)

    @override
    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._agree(trainer)

    @override
    def on_test_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._agree(trainer)

    @override
    def on_predict_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._agree(trainer)

    @override
    def on_exception(self, trainer: Trainer, pl_module: LightningModule, exception: BaseException) -> None:
        self._say()  # what is known: the other ranks may be anywhere

    @override
    def teardown(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        self._say()

    def _agree(self, trainer: Trainer) -> None:
        """Gathers how many examples the ranks have left out since the last time, and logs the count if it has grown."""
        data = getattr(trainer, "datamodule", None)
        if not isinstance(data, LeavesOut):
            return
        own = data.left_out
        new = {place: own[place] for place in own.keys() - self.known.keys()}
        for gathered in Ranks().gather(new):
            self.known |= {place: reason for place, reason in gathered.items() if place not in self.known}
        if len(self.known) > self._logged and trainer.is_global_zero:
            for logger in trainer.loggers:
                logger.log_metrics({SKIPPED: float(len(self.known))}, step=trainer.global_step)
        self._logged = len(self.known)

    def _say(self) -> None:
        if self.known:
            reasons = ", ".join(f"{count} {reason}" for reason, count in Counter(self.known.values()).most_common())
            count = f"{len(self.known)} example{'s' if len(self.known) > 1 else ''}"
            rank_zero_info(f"left out: {count} ({reasons}); data.on_bad_example raise names the first")
            self._logged, self.known = 0, {}
