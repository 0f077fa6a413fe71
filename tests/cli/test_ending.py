"""The end of a rank whose job was put into the queue again: it goes when SLURM says so, whenever that is."""

from __future__ import annotations

import os
import time

import pytest

from textkeep.callbacks.stopping.stop_signals import STOP_SIGNALS, Wish
from textkeep.cli import ending


@pytest.mark.parametrize("look", [0, 1, 2, 5])
def test_slurms_signal_is_heard_between_any_two_looks(monkeypatch: pytest.MonkeyPatch, look: int) -> None:
    looks, count = [0], STOP_SIGNALS.times

    def times(number: int) -> int:
        found = count(number)
        if looks[0] == look:
            os.kill(os.getpid(), number)  # right behind this look; its handler has run when the next line is reached
        looks[0] += 1
        return found

    monkeypatch.setattr(STOP_SIGNALS, "times", times)
    monkeypatch.setattr(ending, "requeue_job", lambda: True)
    monkeypatch.setattr(ending, "PATIENCE", 20.0)
    with STOP_SIGNALS.listening():
        STOP_SIGNALS.carry_out()
        began = time.monotonic()
        assert ending.leave(Wish.REQUEUE, 143) == 143
    assert time.monotonic() - began < 10  # it did not wait for a second one


def test_a_job_that_slurm_does_not_end_is_left_after_a_while(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ending, "requeue_job", lambda: True)
    monkeypatch.setattr(ending, "PATIENCE", 0.2)
    with STOP_SIGNALS.listening():
        STOP_SIGNALS.carry_out()
        began = time.monotonic()
        assert ending.leave(Wish.REQUEUE, 143) == 143
    assert time.monotonic() - began >= 0.2


def test_a_job_that_could_not_be_queued_fails(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ending, "requeue_job", lambda: False)
    assert ending.leave(Wish.REQUEUE, 143) == 1
    assert ending.leave(Wish.TERMINATE, 143) == 143
