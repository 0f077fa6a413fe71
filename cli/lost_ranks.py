"""One line when a process of a multi-process run is lost or fails: one rank reports it, the others stay silent."""

from __future__ import annotations

import hashlib
import json
import re
import signal
import socket
import subprocess
import threading
import time
from collections.abc import Mapping
from contextlib import suppress
from os import environ
from pathlib import Path

from lightning.fabric.strategies.launchers.subprocess_script import _ChildProcessObserver
from lightning.pytorch import Trainer
from lightning.pytorch.strategies.launchers.subprocess_script import _SubprocessScriptLauncher
from torch import distributed

from ..foundation.errors import FAILED, USAGE_ERROR, MachineError
from ..foundation.run_names import ERROR
from .ending import rank_store
from .errors import EXPECTED, debugging, one_line

_CONNECTION = re.compile(
    r"gloo|Connection (?:closed|reset) by peer|NCCL error|remote process exited|Broken pipe|Timed out waiting|"
    r"monitoredBarrier|ProcessGroup"
)
_LATE = re.compile(r"[Tt]imed? ?out")
_PATIENCE = 3.0
"""Seconds that other ranks have to report how they end."""
_END, _SAID = "textkeep/end/{}", "textkeep/said/{}"


class RankEnds:
    """How the ranks of a run tell each other how they end: through their store, without a collective.

    Args:
        trainer: Of this rank, once the ranks are connected.
    """

    def __init__(self, trainer: Trainer) -> None:
        self._rank, self._size = trainer.global_rank, trainer.world_size
        self._first_of_node = trainer.local_rank == 0
        self._error_file = Path(trainer.default_root_dir, ERROR)
        self._began = time.time()
        launcher = trainer.strategy.launcher
        self._children = launcher.procs if isinstance(launcher, _SubprocessScriptLauncher) else []

    def report(self, error: BaseException) -> None:
        """Tells the other ranks that this one is ending and, if it is the cause, why."""
        if self._size == 1:
            return
        for thread in threading.enumerate():
            if isinstance(thread, _ChildProcessObserver):
                # Once a rank has ended, Lightning would kill this process, which may still have to say why or to end
                # W&B; after Ctrl-C, Lightning ends the other ranks itself.
                thread._child_processes = []
        if not isinstance(error, Exception):
            return
        if (store := _living_store()) is not None:
            code = USAGE_ERROR if isinstance(error, EXPECTED) else FAILED
            reason = "" if _is_lost_connection(error) else one_line(error)
            with suppress(distributed.DistError):  # its process has ended in the meantime
                store.set(_END.format(self._rank), json.dumps([reason, code]))

    def judge(self, error: Exception) -> Exception | int:
        """Returns the error that this rank must report, or the exit code with which it ends silently.

        A rank that loses its connection to another one learns from the others which it was; one of them reports it.
        """
        if self._size == 1 or debugging():
            return error
        judged = self._lost(error) if _is_lost_connection(error) else self._own(error)
        if isinstance(judged, Exception) and judged is not error:
            judged.__cause__ = error
        self._end_children()
        return judged

    def _own(self, error: Exception) -> Exception | int:
        code = USAGE_ERROR if isinstance(error, EXPECTED) else FAILED
        return error if _is_first(one_line(error)) else code

    def _lost(self, error: Exception) -> Exception | int:
        if (store := _living_store()) is not None:
            # A killed process closes its connections one after another: the store may answer once and then vanish.
            with suppress(distributed.DistError):
                return self._learned(store, error)
        speaks = self._rank == 1 or self._first_of_node  # the store ends with rank zero
        return self._told(error, {0}) if speaks and not self._told_in_file() else FAILED

    def _learned(self, store: distributed.Store, error: Exception) -> Exception | int:
        ends: Mapping[int, tuple[str, int]] = {}
        until = time.monotonic() + _PATIENCE
        while time.monotonic() < until and len(ends) + len(self._dead()) < self._size:
            ends = _reported(store, self._size)
            if causes := [code for reason, code in ends.values() if reason]:
                return causes[0]
            time.sleep(0.1)
        return self._told(error, set(range(self._size)) - ends.keys()) if _is_first("lost") else FAILED

    def _told_in_file(self) -> bool:
        """Returns whether rank zero left its own error in the run directory."""
        try:
            return self._error_file.stat().st_mtime > self._began
        except OSError:
            return False

    def _told(self, error: Exception, lost: set[int]) -> MachineError:
        names = ", ".join(map(str, sorted(lost))) or "unknown"
        who = f"rank {names} of {self._size}" if len(lost) < 2 else f"ranks {names} of {self._size}"
        if _LATE.search(str(error)):
            text = f"{who} did not answer in time: it hangs, or is busy with something that takes too long"
        else:
            text = f"{who} was lost{self._how(lost)}; its own last lines may say more"
        return MachineError(f"{text}; --ckpt_path last continues from the last checkpoint")

    def _how(self, lost: set[int]) -> str:
        """Names the signal that ended a rank, if this process started it."""
        for child in (child for rank, child in self._dead().items() if rank in lost):
            name = signal.Signals(-child.returncode).name
            mostly = ": usually by the system when it runs out of memory" if name == "SIGKILL" else ""
            return f" (process {child.pid} was ended by {name}{mostly})"
        return ""

    def _dead(self) -> dict[int, subprocess.Popen[bytes]]:
        """Returns the ranks that this process started and that a signal ended: these can no longer report."""
        first = self._rank + 1
        return {rank: child for rank, child in enumerate(self._children, first) if (child.poll() or 0) < 0}

    def _end_children(self) -> None:
        """Ends the ranks that this process started: they might wait for it in a collective for half an hour."""
        until = time.monotonic() + _PATIENCE
        for child in self._children:
            try:
                child.wait(max(0.0, until - time.monotonic()))
            except subprocess.TimeoutExpired:
                child.kill()


def _is_lost_connection(error: BaseException) -> bool:
    """Returns whether an error only says that other ranks do not answer."""
    if isinstance(error, distributed.DistNetworkError | distributed.DistBackendError | distributed.DistStoreError):
        return True
    return type(error) in (RuntimeError, distributed.DistError) and _CONNECTION.search(str(error)) is not None


def _living_store() -> distributed.Store | None:
    """Returns the ranks' store; None if its process is gone, since torch would print pages of errors when asked."""
    store = rank_store()
    if store is None:
        return None
    try:
        with socket.create_connection((environ["MASTER_ADDR"], int(environ["MASTER_PORT"])), timeout=2):
            return store
    except (OSError, KeyError):
        return None


def _reported(store: distributed.Store, size: int) -> Mapping[int, tuple[str, int]]:
    """Returns the reason and exit code of the ranks that have reported how they end."""
    ended = [rank for rank in range(size) if store.check([_END.format(rank)])]
    return {rank: tuple(json.loads(store.get(_END.format(rank)))) for rank in ended}


def _is_first(text: str) -> bool:
    """Returns whether no other rank has reported this."""
    store = _living_store()
    if store is None:
        return True
    try:
        return store.add(_SAID.format(hashlib.sha256(text.encode()).hexdigest()), 1) == 1
    except distributed.DistError:  # its process has ended in the meantime
        return True
