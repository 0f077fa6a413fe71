"""Workers that read batches, and a one-line report of those that die, hang or run out of something."""

from __future__ import annotations

import errno
import re
import resource
import shutil
import signal
import threading
from collections.abc import Callable, Generator, Iterable, Iterator
from contextlib import contextmanager
from multiprocessing.connection import wait
from pathlib import Path
from types import FrameType
from typing import Any, Generic, TypeVar, cast

import torch
from lightning.pytorch.utilities import rank_zero_warn
from torch.utils.data import DataLoader
from torch.utils.data.dataloader import _MultiProcessingDataLoaderIter

from ...foundation.errors import MachineError
from ...foundation.signals import unreached_children
from .attendance import Attendance
from .handing_over import NotHandedOver

T = TypeVar("T")

_FEWEST_FILES = 8
"""Files that are open for a worker at least: its queue and its end."""
_FILES_OF_A_WORKER = 64
"""Files for which there is room for each worker: those, and the tensors of batches that wait."""
_DYING = 2.0
"""Seconds that a dying process may take."""
_BEGIN = (15.0, 30.0, 60.0)
"""Seconds that workers have to begin, at the first attempt and at the others: a slow machine's may only be late."""
_KILLED = re.compile(r"DataLoader worker \(pid (\d+)\) is killed by signal: (.*?)\.?\s*(?:It is possible|$)")
_ENDED = re.compile(r"DataLoader worker \(pid\(s\) (\d+)")
_NO_FILES, _NO_ROOM = "Too many open files", ("shared memory", "</torch_")
_waits = False


class WorkerWatch(Generic[T]):
    """Takes the batches of a ``DataLoader``, and says in one line why its workers deliver none.

    Torch raises for a dead worker wherever the main process is, in the middle of an optimizer step too, of which half
    would be done. Here it is raised only while a batch is waited for, so that the state is that of a whole step.

    Args:
        loader: With or without workers; its ``timeout`` is how long a batch is waited for, in seconds.
        read_by: Names what these workers, by number, read at this moment; nothing if they read none.
        attendance: The loader's ``worker_init_fn``.
    """

    def __init__(
        self,
        loader: DataLoader[T | NotHandedOver],
        read_by: Callable[[Iterable[int]], str],
        attendance: Attendance,
    ) -> None:
        self.loader = loader
        self.read_by = read_by
        self._attendance = attendance

    def batches(self) -> Iterator[T]:
        """Yields the batches of an iteration.

        Raises:
            MachineError: If a worker was killed, does not begin, gives no batch in time, or cannot hand one over.
        """
        if self.loader.num_workers == 0:
            yield from cast(Iterable[T], self.loader)
            return
        _allow_open_files(self.loader.num_workers)
        iterator = self._started()
        while True:
            with self._waiting(iterator):
                batch = next(iterator, None)
            if batch is None:
                return
            if isinstance(batch, NotHandedOver):
                told = self._told(batch.reason, iterator)
                end_workers(iterator, at_once=True)
                raise MachineError(told or batch.reason)
            yield batch

    def _started(self) -> Any:
        """Starts an iteration whose workers have begun; where one is stuck, all are ended and started again."""
        for seconds in _BEGIN:
            random_state = torch.get_rng_state()  # an iterator draws a seed
            if self.loader._iterator is None:
                self._attendance.clear()
            with self._waiting(None), unreached_children():
                iterator = iter(self.loader)
            _raise_only_while_waiting()
            if self._attendance.wait(iterator._workers, seconds):  # type: ignore[attr-defined]
                return iterator
            rank_zero_warn(f"data workers have not begun within {seconds:g} s: they are started again", stacklevel=2)
            end_workers(iterator, at_once=True)
            self.loader._iterator = None
            torch.set_rng_state(random_state)
        raise MachineError(
            f"the data workers ({self.loader.num_workers}) do not begin, {len(_BEGIN)} times in a row; allowed: fewer "
            "data.num_workers (0 reads in the main process), a newer patch release of Python"
        )

    @contextmanager
    def _waiting(self, iterator: Any) -> Generator[None, None, None]:
        global _waits
        _waits = True
        try:
            if any(worker.exitcode for worker in getattr(iterator, "_workers", ())):
                raise RuntimeError  # one died while nothing was waited for
            yield
        except (RuntimeError, OSError, EOFError, MemoryError) as error:
            _waits = False  # the others are going to be killed
            iterator = iterator or self.loader._iterator  # none yet where an epoch begins
            if isinstance(error, EOFError | ConnectionError) and iterator is not None:
                # A batch of a worker that is dying: its files are closed before it counts as dead.
                dying = wait([worker.sentinel for worker in iterator._workers], timeout=_DYING)
                for worker in iterator._workers:
                    worker.join(_DYING if worker.sentinel in dying else 0.01)
            told = self._told(f"{type(error).__name__}: {error}", iterator, getattr(error, "errno", None))
            if told is None:
                raise
            end_workers(iterator, at_once=True)
            raise MachineError(told) from error
        finally:
            _waits = False

    def _told(self, said: str, iterator: Any, number: int | None = None) -> str | None:
        """Returns the line about an error while workers are waited for; None if it is a defect of what they run."""
        count = self.loader.num_workers
        if dead := self._dead(said, iterator):
            return f"{dead}; allowed: fewer data.num_workers (now {count}; 0 reads in the main process), more memory"
        if "DataLoader timed out" in said:
            where = self.read_by(range(count)) or "no clip"
            return (
                f"no batch came from the data workers for {self.loader.timeout:g} s (data.worker_timeout); they are at "
                f"{where}; allowed: a disk that answers, or a longer data.worker_timeout (null waits forever)"
            )
        if number in (errno.EMFILE, errno.ENFILE) or _NO_FILES in said:
            return _too_many_files(count)
        if any(word in said for word in _NO_ROOM) or number == errno.ENOSPC:
            return (
                f"/dev/shm ({_size('/dev/shm')}) is too small for the batches of the data workers ({count}); allowed: "
                "more of it (docker run --shm-size=2g; Kubernetes: an emptyDir of medium Memory mounted there), or "
                "fewer data.num_workers (0 needs none)"
            )
        if said.startswith("MemoryError") or number in (errno.ENOMEM, errno.EAGAIN):
            return f"no memory is left for the data workers ({count}); allowed: fewer data.num_workers, more memory"
        return None

    def _dead(self, said: str, iterator: Any) -> str | None:
        """Says how a worker died, and at what; None if none did."""
        workers = getattr(iterator, "_workers", ())
        died = next((number for number, w in enumerate(workers) if w.exitcode not in (None, 0)), None)
        killed, ended = _KILLED.search(said), _ENDED.search(said)
        where = ""
        if died is not None:
            pid, how = workers[died].pid, _cause(-workers[died].exitcode)
            where = self.read_by([died])
        elif killed or ended:
            pid = (killed or ended)[1]  # type: ignore[index]
            how = f"was killed by a signal ({killed[2]})" if killed else "ended"
        else:
            return None
        return f"a data worker (process {pid}) {how}" + (f" at {where}" if where else "")


def end_workers(iterator: Any, at_once: bool = False) -> None:
    """Ends the workers of a loader's iterator: those that do not end by themselves are killed.

    Args:
        iterator: Any iterator of a ``DataLoader``, or None.
        at_once: Whether they are not asked first: one of them is dead or stuck.
    """
    if not isinstance(iterator, _MultiProcessingDataLoaderIter):
        return
    for worker in iterator._workers if at_once else ():
        worker.kill()
    iterator._shutdown_workers()
    for worker in iterator._workers:
        if worker.is_alive():  # Python would wait for it at the end of the process
            worker.kill()


def _cause(number: int) -> str:
    """Says what a signal means, or an exit code below zero."""
    if number <= 0:
        return f"ended with exit code {-number}"
    name = signal.Signals(number).name
    if number == signal.SIGKILL:
        return f"was killed ({name}: usually by the system when it runs out of memory)"
    if number == signal.SIGBUS:
        return f"crashed ({name}: mostly for want of shared memory; /dev/shm has {_size('/dev/shm')})"
    return f"crashed ({name})" if number in (signal.SIGSEGV, signal.SIGABRT, signal.SIGFPE) else f"was ended ({name})"


def _raise_only_while_waiting() -> None:
    """Takes torch's handler of dead children in: it raises while a batch is waited for, and else does nothing."""
    raising = signal.getsignal(signal.SIGCHLD)
    ours = getattr(raising, "__module__", "") == "torch.utils.data._utils.signal_handling"
    if not callable(raising) or not ours or threading.current_thread() is not threading.main_thread():
        return

    def handler(number: int, frame: FrameType | None) -> None:
        if _waits:
            raising(number, frame)

    signal.signal(signal.SIGCHLD, handler)


def _allow_open_files(workers: int) -> None:
    """Raises the soft limit of open files as far as this many workers need it.

    Raises:
        MachineError: If the hard limit is too low.
    """
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if resource.RLIM_INFINITY in (soft, hard) or not Path("/proc/self/fd").is_dir():
        return
    opened = len(list(Path("/proc/self/fd").iterdir()))
    if hard < opened + _FEWEST_FILES * (workers + 1):
        raise MachineError(_too_many_files(workers))
    wanted = min(hard, opened + _FILES_OF_A_WORKER * (workers + 1))
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, wanted), hard))


def _too_many_files(workers: int) -> str:
    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    return (
        f"the data workers ({workers}) need more open files than are allowed ({soft}); allowed: more of them (`ulimit "
        f"-n {max(4096, workers * _FILES_OF_A_WORKER)}`), or fewer data.num_workers"
    )


def _size(folder: str) -> str:
    """Returns the size of a file system in megabytes."""
    try:
        usage = shutil.disk_usage(folder)
    except OSError:
        return "which is missing"
    return f"{usage.total / 2**20:.0f} MB, {usage.free / 2**20:.0f} MB of them free"
