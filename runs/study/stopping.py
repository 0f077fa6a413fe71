"""Signals to a study: handlers only record them, and the study acts where a run can be stopped cleanly."""

from __future__ import annotations

import math
import os
import signal
import subprocess
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from types import FrameType

POLL_SECONDS = 0.2

OWN_CHILD = {signal.SIGINT: signal.SIGINT, signal.SIGTERM: signal.SIGTERM, signal.SIGHUP: signal.SIGTERM}
"""Signals of a local study -> the signal sent to its child, which has its own session: Ctrl-C, system shutdown, closing
of the terminal."""


class StudyInterrupted(Exception):  # noqa: N818 - a request, no error
    """The user or the system asked to stop; the text, if any, is for the user."""


class Stop:
    """The signals sent to this process.

    Args:
        forwards: Signal -> the signal sent to the child; None if it reaches the child anyway.
        apart: Whether children have their own session.
        patience: Seconds that a child has to save after the first signal.
    """

    def __init__(
        self, forwards: Mapping[signal.Signals, signal.Signals | None], apart: bool = True, patience: float = math.inf
    ) -> None:
        self.apart = apart
        self.noted: list[signal.Signals] = []
        self._forwards = dict(forwards)
        self._patience = patience
        self._since = math.inf
        self._passed_on = 0
        self._terminal: list[int] = []

    @property
    def asked(self) -> bool:
        """Whether this process was asked to stop."""
        return bool(self.noted)

    @property
    def overdue(self) -> bool:
        """Whether a child that is still running has used up its time."""
        return time.monotonic() - self._since > self._patience

    @contextmanager
    def listening(self) -> Iterator[None]:
        """Records the signals; ignored ones (``nohup``, a shell's background) stay ignored."""
        self._terminal = [number for number in (1, 2) if os.isatty(number)]
        before = {number: signal.getsignal(number) for number in self._forwards}
        heard = {number: handler for number, handler in before.items() if handler is not signal.SIG_IGN}
        for number in heard:
            signal.signal(number, self._note)
        try:
            yield
        finally:
            for number, handler in heard.items():
                signal.signal(number, handler)

    def pass_on(self, child: subprocess.Popen[bytes]) -> None:
        """Forwards new signals to a child. The third Ctrl-C kills it, since two did not help."""
        while self._passed_on < len(self.noted):
            number = self.noted[self._passed_on]
            self._passed_on += 1
            if self.noted[: self._passed_on].count(signal.SIGINT) > 2:
                os.killpg(child.pid, signal.SIGKILL) if self.apart else child.kill()
            elif (wanted := self._forwards[number]) is not None:
                child.send_signal(wanted)

    def wait(self, seconds: float) -> None:
        """Sleeps, but wakes up on a signal."""
        end, known = time.monotonic() + seconds, len(self.noted)
        while len(self.noted) == known and (left := end - time.monotonic()) > 0:
            time.sleep(min(POLL_SECONDS, left))

    def _note(self, number: int, frame: FrameType | None) -> None:
        self._since = min(self._since, time.monotonic())
        self.noted.append(signal.Signals(number))
        if number == signal.SIGHUP:  # the terminal is gone: printing must not fail from here on
            for descriptor in self._terminal:
                os.dup2(os.open(os.devnull, os.O_WRONLY), descriptor)


@contextmanager
def blocked(*numbers: signal.Signals) -> Iterator[None]:
    """Defers signals until the block ends; processes started in it never get them."""
    before = signal.pthread_sigmask(signal.SIG_BLOCK, numbers)
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
