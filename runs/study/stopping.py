"""What signals ask of a study: handlers only note it, and it is acted on where a run can be stopped cleanly."""

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
"""Signals of a study on this machine -> what its child is sent, which is in a session of its own: Ctrl-C, the end of
the system, the end of the terminal."""


class StudyInterrupted(Exception):  # noqa: N818 - a request, no error
    """The user or the system asked to stop; the text, if any, is for the user."""


class Stop:
    """The signals that this process was sent.

    Args:
        forwards: Signal -> what the child is sent then; None if the signal reaches it without us.
        apart: Whether children are in a session of their own.
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
        """Whether a child that is still there has had its time."""
        return time.monotonic() - self._since > self._patience

    @contextmanager
    def listening(self) -> Iterator[None]:
        """Notes the signals; one that is ignored (``nohup``, a shell's background) stays ignored."""
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
        """Passes on to a child the signals since the last time. The third Ctrl-C kills it, as two did not help."""
        while self._passed_on < len(self.noted):
            number = self.noted[self._passed_on]
            self._passed_on += 1
            if self.noted[: self._passed_on].count(signal.SIGINT) > 2:
                os.killpg(child.pid, signal.SIGKILL) if self.apart else child.kill()
            elif (wanted := self._forwards[number]) is not None:
                child.send_signal(wanted)

    def wait(self, seconds: float) -> None:
        """Lets time pass, less of it if a signal comes."""
        end, known = time.monotonic() + seconds, len(self.noted)
        while len(self.noted) == known and (left := end - time.monotonic()) > 0:
            time.sleep(min(POLL_SECONDS, left))

    def _note(self, number: int, frame: FrameType | None) -> None:
        self._since = min(self._since, time.monotonic())
        self.noted.append(signal.Signals(number))
        if number == signal.SIGHUP:  # the terminal is gone: what is printed from here on must not fail
            for descriptor in self._terminal:
                os.dup2(os.open(os.devnull, os.O_WRONLY), descriptor)


@contextmanager
def blocked(*numbers: signal.Signals) -> Iterator[None]:
    """Lets signals wait until the block ends; processes that are started in it never get them."""
    before = signal.pthread_sigmask(signal.SIG_BLOCK, numbers)
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
