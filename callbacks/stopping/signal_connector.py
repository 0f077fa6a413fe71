"""Keeps Lightning's own signal handlers out of a run."""

from __future__ import annotations

from contextlib import ExitStack

from lightning.fabric.plugins.environments import SLURMEnvironment
from lightning.pytorch import Trainer
from lightning.pytorch.trainer.connectors.signal_connector import _SignalConnector
from lightning.pytorch.trainer.states import TrainerFn
from typing_extensions import override

from .agreed_stop import Agreement
from .stop_signals import STOP_SIGNALS


class NotingConnector(_SignalConnector):
    """Stands where the Trainer asks Lightning's connector to install handlers, and only has signals noted.

    Lightning's handlers save, broadcast and requeue wherever a signal lands: two ranks that are not at the same place
    wait for each other forever, and half a step would be saved.

    Attributes:
        agreement: What the ranks have agreed on since.
    """

    def __init__(self, trainer: Trainer) -> None:
        super().__init__(trainer)
        self.agreement = Agreement(trainer)
        self._listening = ExitStack()

    @override
    def register_signal_handlers(self) -> None:
        if not STOP_SIGNALS.active:  # no command line around this Trainer
            self._listening.enter_context(STOP_SIGNALS.listening())
        environment = self.trainer._accelerator_connector.cluster_environment
        requeues = isinstance(environment, SLURMEnvironment) and environment.auto_requeue
        STOP_SIGNALS.note_requeue(getattr(environment, "requeue_signal", None) if requeues else None)
        fits_alone = self.trainer.state.fn == TrainerFn.FITTING and self.trainer.world_size == 1
        if not fits_alone:  # else from the first batch on: before, nothing is to be saved, and no rank is left waiting
            STOP_SIGNALS.only_note(tells=self.trainer.is_global_zero)

    @override
    def teardown(self) -> None:
        STOP_SIGNALS.end_noting()
        self._listening.close()


def connect_to(trainer: Trainer) -> None:
    """Replaces the Trainer's own connector by a fresh one; it has installed nothing before its stages run."""
    trainer._signal_connector = NotingConnector(trainer)


def agreement_of(trainer: Trainer) -> Agreement | None:
    """Returns what the ranks have agreed on; None in a Trainer without ``GracefulStop``."""
    connector = trainer._signal_connector
    return connector.agreement if isinstance(connector, NotingConnector) else None
