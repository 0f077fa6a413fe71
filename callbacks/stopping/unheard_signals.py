"""Ends a process that cannot handle its signals because its main thread waits outside Python."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

PATIENCE = 3.0
"""Seconds that a handler may take until it is run."""


@contextmanager
def heard(at_once: Callable[[int], bool], waits: Callable[[int], bool], end: Callable[[int], None]) -> Iterator[None]:
    """Watches, from another thread, that signals which are to end the process at once do so.

    Python runs a handler in the main thread, between two of its instructions. Where that thread waits in C (for ranks
    that never come, in a collective whose other rank has died), it would be run after half an hour, or never.

    Args:
        at_once: Whether a signal of this number, which has just come, is to end the process.
        waits: Whether its handler has not been run yet.
        end: Ends the process for this signal; called in the other thread.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    reading, writing = os.pipe()
    os.set_blocking(writing, False)
    over = threading.Event()

    def watch() -> None:
        while numbers := os.read(reading, 64):
            late = [number for number in numbers if at_once(number)]
            if late and over.wait(PATIENCE):
                continue  # it was heard: what counts signals may have begun anew since
            for number in late:
                if waits(number):
                    end(number)
        os.close(reading)

    before = signal.set_wakeup_fd(writing, warn_on_full_buffer=False)
    threading.Thread(target=watch, daemon=True).start()
    try:
        yield
    finally:
        over.set()
        signal.set_wakeup_fd(before)
        os.close(writing)
