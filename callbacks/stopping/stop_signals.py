"""The signals that ask a process to stop; they are noted here, and nothing else is done in a handler.

A handler runs between any two instructions: in the middle of an optimizer step half of the weights have moved, and
another rank may wait in a collective of another kind. So while a Trainer runs, a signal leaves a wish behind; between
two steps all ranks look at what any of them was asked (``GracefulStop``). Before and after that, when there is nothing
to save, the process ends at once. Only the standard library is needed: a SLURM signal may come while torch is imported.
"""

from __future__ import annotations

import os
import signal
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from enum import Enum, IntEnum, auto
from types import FrameType
from typing import Any

from ...foundation.errors import INTERRUPTED, TERMINATED
from .unheard_signals import heard

STOPPING = b"\nStopping after this step. Ctrl-C again stops at once.\n"
"""What the first Ctrl-C is answered with."""


class Wish(IntEnum):
    """What was asked; of several ranks' wishes the greatest counts."""

    NONE = 0
    INTERRUPT = 1
    """Ctrl-C: save and end."""
    TERMINATE = 2
    """SIGTERM: save and end; the sender decides whether the run continues later."""
    REQUEUE = 3
    """The end of a SLURM job's time is near: save, end, and have the job put into the queue again."""


class _Phase(Enum):
    AT_ONCE = auto()
    """Nothing is to be saved."""
    NOTED = auto()
    """A Trainer runs."""
    STOPPING = auto()
    """The ranks have agreed to stop, and are saving."""


class StopSignals:
    """The handlers of a process, and what they noted.

    Attributes:
        wish: The greatest one so far.
    """

    def __init__(self) -> None:
        self.wish = Wish.NONE
        self._wishes: dict[int, Wish] = {}
        self._before: dict[int, Any] = {}
        self._phase = _Phase.AT_ONCE
        self._tells = True
        self._interrupted = False
        self._came: Counter[int] = Counter()  # as another thread saw them
        self._handled: Counter[int] = Counter()

    def note_requeue(self, number: int | None = signal.SIGUSR1) -> None:
        """Notes, from now to the end of the process, the signal that SLURM sends before a job's time limit.

        Args:
            number: Of the signal, the only one with this meaning; None where nothing is put into the queue again.
        """
        for other in [taken for taken, wish in self._wishes.items() if wish is Wish.REQUEUE and taken != number]:
            self._give_back(other)
            self.wish = Wish.NONE if self.wish is Wish.REQUEUE else self.wish
        if number is not None:
            self._take(number, Wish.REQUEUE)

    @contextmanager
    def listening(self, last: Callable[[], None] = lambda: None) -> Iterator[None]:
        """Ends the process tidily on Ctrl-C and SIGTERM: at once, or after its step while a Trainer runs.

        Args:
            last: What is still to be done, in another thread, where the main one cannot be reached.

        Raises:
            KeyboardInterrupt: In the main thread, after Ctrl-C.
            SystemExit: In the main thread, after SIGTERM.
        """

        def end(number: int) -> None:
            try:
                last()
            finally:
                os._exit(INTERRUPTED if number == signal.SIGINT else TERMINATED)

        self.wish = self.wish if self.wish is Wish.REQUEUE else Wish.NONE
        self._phase, self._interrupted = _Phase.AT_ONCE, False
        self._came.clear()
        self._handled.clear()
        self._take(signal.SIGINT, Wish.INTERRUPT)
        self._take(signal.SIGTERM, Wish.TERMINATE)
        try:
            with heard(self._ends_at_once, self._waits, end):
                yield
        finally:
            self._give_back(signal.SIGINT)
            self._give_back(signal.SIGTERM)
            self.wish = Wish.NONE

    def only_note(self, tells: bool) -> None:
        """Lets the wishes wait until the ranks look at them.

        Args:
            tells: Whether this process answers Ctrl-C with a line.
        """
        self._phase, self._tells = _Phase.NOTED, tells

    def carry_out(self) -> None:
        """Says that the stop has begun: what SLURM or a user sends now asks for nothing new."""
        self._phase = _Phase.STOPPING

    def end_noting(self) -> None:
        """Says that the Trainer has ended: from now on a signal ends the process at once again."""
        if self._phase is _Phase.NOTED:
            self._phase = _Phase.AT_ONCE
            self._came.clear()
            self._handled.clear()

    def times(self, number: int) -> int:
        """Counts how often a signal has come since the Trainer began or ended."""
        return self._handled[number]

    @property
    def active(self) -> bool:
        """Whether Ctrl-C is listened to."""
        return signal.SIGINT in self._before

    def _take(self, number: int, wish: Wish) -> None:
        ignored = signal.getsignal(number) is signal.SIG_IGN  # by the process's parent: a shell's background
        if threading.current_thread() is threading.main_thread() and not ignored and number not in self._before:
            self._wishes[number] = wish
            self._before[number] = signal.signal(number, self._on_signal)

    def _give_back(self, number: int) -> None:
        if number in self._before and threading.current_thread() is threading.main_thread():
            before = self._before.pop(number)
            if signal.getsignal(number) == self._on_signal:  # Lightning ignores Ctrl-C from the first one on
                signal.signal(number, before)

    def _ends_at_once(self, number: int) -> bool:
        self._came[number] += 1
        needed = self._needed(number)
        return needed is not None and self._came[number] >= needed

    def _waits(self, number: int) -> bool:
        needed = self._needed(number)
        return needed is not None and self._handled[number] < needed

    def _needed(self, number: int) -> int | None:
        """Returns how often a signal must come now to end the process at once; None if it never does."""
        if self._phase is _Phase.AT_ONCE and number in (signal.SIGINT, signal.SIGTERM):
            return 1
        return 2 if number == signal.SIGINT else None

    def _on_signal(self, number: int, frame: FrameType | None) -> None:
        self._handled[number] += 1
        asked = self._wishes[number]
        self.wish = max(self.wish, asked)
        if asked is Wish.INTERRUPT:
            if self._phase is _Phase.AT_ONCE or self._interrupted:
                raise KeyboardInterrupt
            self._interrupted = True
            if self._tells and self._phase is _Phase.NOTED:
                os.write(1, STOPPING)  # print() may have been interrupted by this very handler
        elif asked is Wish.TERMINATE and self._phase is _Phase.AT_ONCE:
            raise SystemExit(TERMINATED)


STOP_SIGNALS = StopSignals()
"""Those of this process."""
