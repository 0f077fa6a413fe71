"""How the ranks of a stopped run leave together, and how its SLURM job is requeued."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from datetime import timedelta

from lightning.pytorch.utilities.rank_zero import rank_zero_only
from torch import distributed

from ..callbacks.stopping.stop_signals import STOP_SIGNALS, Wish
from ..foundation.signals import unreached_children

PATIENCE = 60.0
"""Seconds that a rank waits for rank zero to end, and for SLURM to end a job that it has requeued."""

_LEFT, _HEARD = "textkeep/left", "textkeep/heard"
_LOOK = 0.02
"""Seconds between two checks."""
_MOMENT = 2.0
"""Seconds that the other ranks have to hear from rank zero; their store ends with it."""


def leave(wish: Wish, code: int) -> int:
    """Ends a stopped run: rank zero requeues its job, if asked to; the others wait.

    If a rank ends before the others, srun, torchrun or Lightning ends these while they are still writing.

    Args:
        wish: What the ranks have agreed on.
        code: Exit code of the run.

    Returns:
        The exit code of this process.
    """
    requeue, terms = wish is Wish.REQUEUE, STOP_SIGNALS.times(signal.SIGTERM)
    if rank_zero_only.rank == 0:  # type: ignore[attr-defined]
        queued = requeue and requeue_job()
        _tell("queued" if queued else "failed" if requeue else "ended")
    else:
        said = _hear()
        queued, requeue = said == "queued", said in ("queued", "failed")
    # Otherwise the job's script goes on to its next command before SLURM ends the job. Its SIGTERM may come at any
    # moment, even between two checks: it is counted, and never waited for once it has come.
    until = time.monotonic() + PATIENCE
    while queued and STOP_SIGNALS.times(signal.SIGTERM) == terms and time.monotonic() < until:
        time.sleep(_LOOK)
    return code if queued or not requeue else 1


def requeue_job() -> bool:
    """Requeues this SLURM job, or only this task of an array; SLURM ends it within a second.

    Returns:
        Whether SLURM did; if not, a line on standard error says why.
    """
    array, job = os.environ.get("SLURM_ARRAY_JOB_ID"), os.environ.get("SLURM_JOB_ID", "")
    if array:
        job = f"{array}_{os.environ['SLURM_ARRAY_TASK_ID']}"
    print(f"requeueing SLURM job {job}", flush=True)
    try:
        with unreached_children():
            done = subprocess.run(["scontrol", "requeue", job], capture_output=True, text=True, timeout=PATIENCE)
        reason = "" if done.returncode == 0 else done.stderr.strip() or f"scontrol ended with {done.returncode}"
    except (OSError, subprocess.TimeoutExpired) as error:
        reason = str(error)
    if reason:
        print(
            f"textkeep: SLURM job {job} was not requeued: {' '.join(reason.split())}; "
            "--ckpt_path last continues the run",
            file=sys.stderr,
            flush=True,
        )
    return not reason


def rank_store() -> distributed.Store | None:
    """Returns the key-value store of the ranks; unlike a collective, it does not hang if a rank has died."""
    if not (distributed.is_available() and distributed.is_initialized()) or distributed.get_world_size() == 1:
        return None
    return distributed.distributed_c10d._get_default_store()


def _tell(word: str) -> None:
    if (store := rank_store()) is None:
        return
    store.set(_LEFT, word)
    until = time.monotonic() + _MOMENT
    while store.add(_HEARD, 0) < distributed.get_world_size() - 1 and time.monotonic() < until:
        time.sleep(_LOOK)


def _hear() -> str:
    store = rank_store()
    if store is None:
        return ""
    try:
        store.wait([_LEFT], timedelta(seconds=PATIENCE))
        said = store.get(_LEFT).decode()
        store.add(_HEARD, 1)
        return said
    except RuntimeError:  # rank zero is gone, or never ends
        return ""
