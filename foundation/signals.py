"""Processes shielded from the signals that stop a run."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager

from .errors import INTERRUPTED

STOPPING = frozenset({signal.SIGINT, signal.SIGTERM, signal.SIGUSR1, signal.SIGUSR2})
"""What a terminal sends to its whole process group, and SLURM to every process of a job step."""


@contextmanager
def unreached_children() -> Iterator[None]:
    """Blocks these signals in processes started within the context; signals that arrive in the meantime are not lost.

    A blocked signal stays blocked in a child, even in a Go program, which would override an ignored SIGTERM.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.pthread_sigmask(signal.SIG_BLOCK, STOPPING)
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


@contextmanager
def ending_at_interrupt() -> Iterator[None]:
    """Lets Ctrl-C end the process at once during imports, when there is nothing to save yet.

    A ``KeyboardInterrupt`` raised while an extension module is imported is lost in C, and the library that waits for
    the module fails with its own error.
    """
    in_main = threading.current_thread() is threading.main_thread()
    if not in_main or signal.getsignal(signal.SIGINT) is not signal.default_int_handler:
        yield
        return
    signal.signal(signal.SIGINT, lambda *_: os._exit(INTERRUPTED))
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, signal.default_int_handler)


def obey_parent_alone() -> None:
    """Lets only its parent's SIGTERM end this process; call it once, in a child's main thread."""
    signal.pthread_sigmask(signal.SIG_BLOCK, STOPPING)
    threading.Thread(target=_wait_for_parent, args=(os.getppid(),), daemon=True).start()


def _wait_for_parent(parent: int) -> None:
    while True:
        if signal.sigwaitinfo({signal.SIGTERM}).si_pid == parent:
            os.kill(os.getpid(), signal.SIGKILL)  # the main thread may hang
