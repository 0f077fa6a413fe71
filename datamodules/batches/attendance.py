"""Which data workers have started, as they report themselves."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Any

import torch

from ...foundation.signals import obey_parent_alone

_LOOK = 0.005
"""Seconds between two looks."""


class Attendance:
    """Tracks whether the workers of a loader have started; it is the loader's ``worker_init_fn``.

    A worker is a fork of a process with threads: gloo's, autograd's, W&B's. What lock a thread holds at that moment
    stays locked in the worker for ever, and some are taken before it runs a line of Python: CPython's own is one before
    3.11.10 (gh-112275). Such a worker lives, gives nothing, and the run would wait for it without an end.

    Args:
        workers: How many.
    """

    def __init__(self, workers: int) -> None:
        self._begun = torch.zeros(workers, dtype=torch.bool).share_memory_()

    def __call__(self, number: int) -> None:
        """Notes, in a worker, that it has begun, and leaves the signals that stop a run to the trainer."""
        obey_parent_alone()
        self._begun[number] = True

    def clear(self) -> None:
        """Forgets the workers before, as others are about to start."""
        self._begun.zero_()

    def wait(self, workers: Sequence[Any], seconds: float) -> bool:
        """Waits until all workers have started; a dead one is not waited for, as that is reported elsewhere.

        Args:
            workers: Their processes, by number.
            seconds: Longest wait.

        Returns:
            Whether none is stuck.
        """
        end = time.monotonic() + seconds
        while stuck := [w for number, w in enumerate(workers) if not self._begun[number] and w.exitcode is None]:
            if time.monotonic() > end:
                return not stuck
            time.sleep(_LOOK)
        return True
