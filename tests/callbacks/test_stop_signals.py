"""What a process does with the signals that ask it to stop."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from typing import Any

import lightning as L
import pytest
import torch
from lightning.pytorch.utilities.exceptions import SIGTERMException
from torch.utils.data import DataLoader

from textkeep.callbacks import GracefulStop
from textkeep.callbacks.stopping.agreed_stop import AgreedEnd, AgreedStop
from textkeep.callbacks.stopping.give_way import give_way, taking_turns
from textkeep.callbacks.stopping.stop_signals import StopSignals, Wish

HANDLED = (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1)


@pytest.fixture(autouse=True)
def handlers() -> Iterator[None]:
    before = {number: signal.getsignal(number) for number in HANDLED}
    signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell's background ignores it
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


def send(number: int) -> None:
    os.kill(os.getpid(), number)


@pytest.mark.parametrize(("number", "error"), [(signal.SIGINT, KeyboardInterrupt), (signal.SIGTERM, SystemExit)])
def test_before_and_after_a_trainer_a_signal_ends_the_process(number: int, error: type[BaseException]) -> None:
    signals = StopSignals()
    for _ in range(2):
        with signals.listening():
            signals.only_note(tells=False)
            signals.end_noting()
            with pytest.raises(error):
                send(number)
    assert signal.getsignal(signal.SIGTERM) == signal.SIG_DFL


def test_the_greatest_wish_counts_and_a_stop_that_has_begun_goes_on(capfd: pytest.CaptureFixture[str]) -> None:
    signals = StopSignals()
    signals.note_requeue()
    with signals.listening():
        signals.only_note(tells=True)
        send(signal.SIGINT)
        assert signals.wish is Wish.INTERRUPT
        assert "Ctrl-C again stops at once" in capfd.readouterr().out
        send(signal.SIGUSR1)
        send(signal.SIGTERM)
        assert signals.wish is Wish.REQUEUE
        signals.carry_out()
        send(signal.SIGTERM)  # SLURM's, after the job was put into the queue again
        signals.end_noting()
        send(signal.SIGTERM)
        with pytest.raises(KeyboardInterrupt):
            send(signal.SIGINT)
    send(signal.SIGUSR1)  # at the very end of the process, too


def test_slurms_signal_is_kept_from_before_the_first_import() -> None:
    signals = StopSignals()
    signals.note_requeue()
    send(signal.SIGUSR1)
    with signals.listening():
        assert signals.wish is Wish.REQUEUE
        signals.note_requeue(signal.SIGUSR1)
        assert signals.wish is Wish.REQUEUE
        signals.note_requeue(None)  # nothing is put into the queue again
        assert signals.wish is Wish.NONE
        assert signal.getsignal(signal.SIGUSR1) == signal.SIG_DFL


def test_a_signal_that_was_ignored_stays_ignored() -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    with StopSignals().listening():
        send(signal.SIGINT)
    assert signal.getsignal(signal.SIGINT) == signal.SIG_IGN


WAITS_IN_C = """
import ctypes
from textkeep.callbacks.stopping.stop_signals import StopSignals
with StopSignals().listening(lambda: print("last", flush=True)):
    mutex, c = ctypes.create_string_buffer(64), ctypes.CDLL(None)
    c.pthread_mutex_lock(mutex)
    print("waits", flush=True)
    c.pthread_mutex_lock(mutex)  # no signal ends that
"""


def test_a_process_that_waits_outside_of_python_ends_too() -> None:
    child = subprocess.Popen([sys.executable, "-c", WAITS_IN_C], stdout=subprocess.PIPE, text=True)
    assert child.stdout is not None
    assert child.stdout.readline() == "waits\n"
    time.sleep(0.2)
    child.send_signal(signal.SIGTERM)
    output, _ = child.communicate(timeout=20)
    assert (child.returncode, output) == (143, "last\n")


HEARD_BEFORE = """
import os, signal, time
from textkeep.callbacks.stopping import unheard_signals
from textkeep.callbacks.stopping.stop_signals import StopSignals
unheard_signals.PATIENCE, signals = 0.3, StopSignals()
try:
    with signals.listening():
        os.kill(os.getpid(), signal.SIGTERM)
        time.sleep(9)
except SystemExit:
    pass
with signals.listening():  # counts anew
    time.sleep(1)
print("alive")
"""


def test_a_signal_that_was_heard_ends_no_later_run_of_the_process() -> None:
    child = subprocess.run([sys.executable, "-c", HEARD_BEFORE], capture_output=True, text=True)
    assert (child.returncode, child.stdout) == (0, "alive\n"), child.stderr


class Learner(L.LightningModule):
    """One weight; it is sent a signal in a batch."""

    def __init__(self, place: str, batch: int, number: int = signal.SIGTERM) -> None:
        super().__init__()
        self.weight = torch.nn.Parameter(torch.ones(1))
        self.place, self.batch, self.number = place, batch, number
        self.seen: dict[str, int] = {"train": 0, "validate": 0, "predict": 0}
        self.rows: list[int] = []

    def _step(self, place: str, batch: torch.Tensor, number: int) -> torch.Tensor:
        self.seen[place] += 1
        if (place, number) == (self.place, self.batch):
            send(self.number)
        return (self.weight * batch).sum()

    def training_step(self, batch: torch.Tensor, number: int) -> torch.Tensor:
        loss = self._step("train", batch, number)
        self.log("loss", loss)
        return loss

    def validation_step(self, batch: torch.Tensor, number: int) -> None:
        self._step("validate", batch, number)

    def predict_step(self, batch: torch.Tensor, number: int) -> torch.Tensor:
        return self._step("predict", batch, number)

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.SGD(self.parameters(), lr=0.1)


class Rows(L.pytorch.loggers.Logger):
    """Keeps the steps that were logged."""

    name = version = ""

    def __init__(self, rows: list[int]) -> None:
        super().__init__()
        self.rows = rows

    def log_metrics(self, metrics: dict[str, float], step: int | None = None) -> None:
        if "loss" in metrics:
            self.rows.append(step or 0)

    def log_hyperparams(self, *args: Any, **kwargs: Any) -> None:
        pass


def trainer(learner: Learner, *callbacks: L.Callback, **options: Any) -> L.Trainer:
    return L.Trainer(
        accelerator="cpu",
        logger=Rows(learner.rows),
        callbacks=[GracefulStop(), *callbacks],
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        log_every_n_steps=1,
        **{"max_epochs": 1, "num_sanity_val_steps": 0, **options},
    )


def loader() -> DataLoader[Any]:
    return DataLoader(torch.ones(12, 1), batch_size=1)  # type: ignore[arg-type]


@pytest.mark.filterwarnings("ignore")
def test_a_step_is_finished_and_logged_before_the_run_stops() -> None:
    learner = Learner("train", 4)
    fitting = trainer(learner, accumulate_grad_batches=3)
    with pytest.raises(AgreedEnd):
        fitting.fit(learner, loader())
    assert fitting.global_step == 2  # batches 3, 4, 5 are one step
    assert learner.seen["train"] == 6
    assert learner.rows[-1] == 1  # that step, counted from 0
    assert signal.getsignal(signal.SIGTERM) == signal.SIG_DFL


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("place", ["validate", "predict"])
def test_a_loop_stops_after_the_batch(place: str) -> None:
    learner = Learner(place, 5)
    with pytest.raises(SIGTERMException):
        getattr(trainer(learner), place)(learner, loader())
    assert learner.seen[place] == 6


class Measuring(L.Callback):
    """Measures four items at the end of the second step, and is sent a signal in the second of them."""

    def __init__(self) -> None:
        self.items = 0

    def on_train_batch_start(self, trainer: L.Trainer, *args: Any) -> None:
        if trainer.global_step != 2:
            return
        with taking_turns(trainer) as look:
            for item in range(4):
                look()
                self.items += 1
                if item == 1:
                    send(signal.SIGTERM)


@pytest.mark.filterwarnings("ignore")
def test_a_measurement_gives_way_between_two_items() -> None:
    learner, measuring = Learner("", 0), Measuring()
    with pytest.raises(AgreedStop):
        trainer(learner, measuring).fit(learner, loader())
    assert measuring.items == 2
    assert learner.rows == [0, 1]


class MeasuringFirst(L.Callback):
    """Is sent a signal in the second of three items that it measures before the first step."""

    def __init__(self, number: int) -> None:
        self.number, self.items = number, 0

    def on_train_start(self, trainer: L.Trainer, *args: Any) -> None:
        for item in range(3):
            give_way(trainer)
            if item == 1:
                send(self.number)
            self.items += 1


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_before_the_first_batch_a_signal_does_not_wait_for_the_item(number: int) -> None:
    learner, measuring = Learner("", 0), MeasuringFirst(number)
    with pytest.raises(SystemExit):  # Lightning makes it one of Ctrl-C
        trainer(learner, measuring).fit(learner, loader())
    assert measuring.items == 1
    assert learner.seen["train"] == 0
    assert signal.getsignal(signal.SIGTERM) == signal.SIG_DFL


@pytest.mark.filterwarnings("ignore")
def test_without_graceful_stop_nothing_gives_way() -> None:
    learner = Learner("", 0)
    alone = L.Trainer(accelerator="cpu", logger=False, enable_progress_bar=False, max_steps=1)
    give_way(alone)
    with taking_turns(alone) as look:
        look()
    assert learner.seen["train"] == 0
