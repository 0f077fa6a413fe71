"""One writer per run directory: a lock file that says who writes and that dead processes cannot keep."""

from __future__ import annotations

import os
import socket
import time
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from filelock import SoftFileLease, Timeout

from ..foundation.errors import UserError
from ..foundation.files import naming
from .launch import Launch

LEASE_SECONDS = 120.0
"""A holder on another machine without a sign of life for this long counts as gone."""
ENDING_SECONDS = 30.0
"""Time that an earlier attempt of the same job on this machine has to end."""
LONGEST_JOB = 200
"""Maximum length of a job's name in the file; ``filelock`` reads one kilobyte."""
SIGNS = 12
"""Signs of life per lease. A second writer on another machine waits up to one interval to be refused."""


@dataclass(frozen=True)
class Holder:
    """The holder of a lock, according to its file.

    Attributes:
        pid: Of the process.
        host: Its machine.
        place: Machine and PID namespace, within which processes can be inspected.
        job: Its job; empty without one.
        attempt: Of the job.
        since: When the lock was taken, seconds since the epoch; None if not in the file.
        directory: Inode of the directory, which a copy does not share; empty if not in the file.
    """

    pid: str
    host: str
    place: str
    job: str
    attempt: tuple[int, ...]
    since: float | None = None
    directory: str = ""

    @classmethod
    def read(cls, path: Path) -> Holder | None:
        """Reads a lock file; None if there is none or it does not say who wrote it."""
        try:
            lines = path.read_text(encoding="utf-8", errors="replace").splitlines()
        except OSError:
            return None
        said = {key: value for key, _, value in (line.partition("=") for line in lines)}
        if "pid" not in said:
            return None
        attempt = tuple(int(part) for part in said.get("attempt", "").split(".") if part.isdecimal())
        host = said.get("machine") or said.get("host", "?")
        since = float(said["since"]) if said.get("since", "").isdecimal() else None
        place, job, directory = (said.get(key, "") for key in ("place", "job", "directory"))
        return cls(said["pid"], host, place, job, attempt, since, directory)

    @classmethod
    def alive(cls, path: Path, lease: float = LEASE_SECONDS) -> Holder | None:
        """Reads who currently holds a lock; None without a sign of life, or if the file is a copy.

        Args:
            path: The lock file.
            lease: Seconds, as used by the writers of the file.
        """
        holder = cls.read(path)
        try:
            silent = time.time() - path.stat().st_mtime
        except OSError:
            return None
        if holder is None or silent > lease or cls.elsewhere(path):
            return None
        return holder if holder.place != _place() or _exists(holder.pid) else None

    @classmethod
    def elsewhere(cls, path: Path) -> bool:
        """Returns whether a lock file is the copy of one in another directory."""
        holder = cls.read(path)
        return holder is not None and holder.directory not in ("", str(path.parent.stat().st_ino))

    def __str__(self) -> str:
        return f"process {self.pid} on {self.host}{f' ({self.job})' if self.job else ''}"


class RunLock:
    """Allows one writer at a time in a run directory, on whatever machines they run.

    The file is a lease of ``filelock``, so it needs no operating-system locks, which not all network file systems have.
    The holder renews it continually. It is taken over from a process of this machine that has ended, from an earlier
    attempt of the same job, and from one of another machine that gives no sign of life for ``lease`` seconds.

    Args:
        path: The lock file, in the run directory.
        launch: Who started this process.
        lease: Seconds; the same for all users of the file.
    """

    def __init__(self, path: Path, launch: Launch, lease: float = LEASE_SECONDS) -> None:
        self.path = path
        self._launch = launch
        self._seconds = lease
        self._lease = self._new()

    def acquire(self) -> None:
        """Takes the lock; waits if the holder is on another machine and may be gone.

        Raises:
            UserError: If another process writes to the directory, with its id and machine.
            OSError: If the directory cannot be written to.
        """
        if not self.try_acquire():
            self._take_over()
            self._sign()

    def try_acquire(self) -> bool:
        """Takes the lock if nobody holds it, or if the holder is known to be gone.

        Raises:
            OSError: If the directory cannot be written to.
        """
        try:
            with naming(self.path):
                self._lease.acquire(blocking=False)
        except Timeout:
            return False
        self._sign()
        return True

    def check(self) -> None:
        """Checks a lock whose renewal has failed: it is taken again if nobody else holds it.

        Raises:
            UserError: If another process has taken it in the meantime.
        """
        if self._lease.compromise is None:
            return
        self.release()
        self._lease = self._new()
        if not self.try_acquire():
            raise UserError(
                f"{self.path.parent} was taken over by {Holder.read(self.path)}: this process had given no sign of "
                f"life for {self._seconds:.0f} s"
            )

    def release(self) -> None:
        """Releases the lock; does nothing if it is not held."""
        with suppress(OSError):
            self._lease.release(force=True)

    def _new(self) -> SoftFileLease:
        return SoftFileLease(
            self.path,
            lease_duration=self._seconds,
            heartbeat_interval=self._seconds / SIGNS,
            thread_local=False,
        )

    def _take_over(self) -> None:
        holder = Holder.read(self.path)
        here = holder is not None and holder.place == _place()  # and alive: filelock has checked
        if (
            holder is not None
            and holder.job == self._launch.job[:LONGEST_JOB] != ""
            and holder.attempt < self._launch.attempt
        ):
            if not here:
                self._lease.force_break()  # it ended with its attempt, although this machine cannot see that
            with suppress(Timeout):
                self._lease.acquire(timeout=ENDING_SECONDS)
                return
        if here:
            raise self._refusal(holder)
        self._wait(holder)

    def _wait(self, holder: Holder | None) -> None:
        """Waits until the holder shows a sign of life, which is an error, or its lease expires."""
        seen = self._sign_of_life()
        writer = holder or "an unknown process"
        wait = f"waiting up to {self._seconds:.0f} s for a sign of life of it"
        print(f"{self.path.parent} was last written by {writer}: {wait}", flush=True)
        try:
            self._lease.acquire(
                timeout=self._seconds + 5,
                poll_interval=0.5,
                cancel_check=lambda: self._sign_of_life() not in (None, seen),
            )
        except Timeout:
            if self._sign_of_life() not in (None, seen):
                raise self._refusal(Holder.read(self.path) or holder) from None
            self._lease.force_break()  # an empty file, from a process that ended while creating it
            self._lease.acquire(blocking=False)

    def _sign_of_life(self) -> tuple[int, int] | None:
        try:
            found = self.path.stat()
        except OSError:
            return None
        return found.st_ino, found.st_mtime_ns

    def _refusal(self, holder: Holder | None) -> UserError:
        return UserError(
            f"trainer.default_root_dir: {self.path.parent} is being written by {holder or 'another process'}; "
            "allowed: another directory, or the same one when that process has ended"
        )

    def _sign(self) -> None:
        """Adds what ``filelock`` does not record to the file; it ignores unknown lines."""
        attempt = ".".join(map(str, self._launch.attempt))
        job = self._launch.job[:LONGEST_JOB]
        now, directory = f"{time.time():.0f}", str(self.path.parent.stat().st_ino)
        lines = {"machine": socket.gethostname(), "place": _place(), "job": job, "attempt": attempt}
        lines |= {"since": now, "directory": directory}
        with naming(self.path), self.path.open("a", encoding="utf-8") as file:
            file.write("".join(f"{key}={value}\n" for key, value in lines.items()))


def _exists(pid: str) -> bool:
    """Returns whether a process of this machine exists, whoever owns it."""
    try:
        os.kill(int(pid), 0)
    except (ProcessLookupError, ValueError):
        return False
    except PermissionError:
        return True
    return True


def _place() -> str:
    """Names what processes that can see each other share: a machine and, on Linux, its PID namespace."""
    try:
        namespace = str(os.stat("/proc/self/ns/pid").st_ino)
    except OSError:
        namespace = ""
    return f"{socket.gethostname()} {namespace}"
