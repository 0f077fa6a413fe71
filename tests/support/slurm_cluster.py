"""A real SLURM cluster of two nodes on this machine (``tests/support/slurm/``), and the jobs that run on it."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

from .processes import child_environment

SCRIPTS = Path(__file__).with_name("slurm")
CANNOT_BE_HAD = 77
"""Exit code of ``up.sh`` where there can be no cluster."""
READS = 50
"""How often the environment of a living process is asked for."""
ENDED = {"COMPLETED", "FAILED", "CANCELLED", "TIMEOUT", "OUT_OF_MEMORY", "DEADLINE", "BOOT_FAIL"}
"""States from which no job comes back; from ``NODE_FAIL`` it does."""


class UnavailableError(Exception):
    """There can be no cluster on this machine; the text says why."""


def until(condition: Callable[[], bool], timeout: float, what: str | Callable[[], str]) -> None:
    """Waits for a condition.

    Args:
        condition: Asked again and again.
        timeout: Seconds.
        what: What is waited for, said when it does not come; a function is called then.

    Raises:
        TimeoutError: After that time.
    """
    end = time.monotonic() + timeout
    while not condition():
        if time.monotonic() > end:
            raise TimeoutError(f"not within {timeout:g} s: {what if isinstance(what, str) else what()}")
        time.sleep(0.05)


class Cluster:
    """A cluster of SLURM: ``head``, ``node1``, ``node2``, ...

    Args:
        folder: Where ``up.sh`` has brought it up.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    @classmethod
    def up(cls, folder: Path, **settings: object) -> Cluster:
        """Brings a cluster up, which ends with this process at the latest.

        Args:
            folder: A folder for its files, new or empty.
            settings: Variables of ``up.sh``: ``NODES``, ``GPUS``, ``KILL_WAIT`` and so on.

        Raises:
            UnavailableError: If there can be none here.
        """
        variables = {"OWNER": os.getpid(), **settings}
        environment = {**os.environ, **{name: str(value) for name, value in variables.items()}}
        words = ["bash", str(SCRIPTS / "up.sh"), str(folder)]
        done = subprocess.run(words, env=environment, capture_output=True, text=True, timeout=300)
        if done.returncode == CANNOT_BE_HAD:
            raise UnavailableError(done.stderr.strip())
        assert done.returncode == 0, done.stderr
        return cls(folder)

    def down(self) -> None:
        """Ends the cluster and everything that runs on it."""
        subprocess.run(["bash", str(SCRIPTS / "down.sh"), str(self.folder)], check=True, timeout=60)

    def command(self, node: str, *words: object) -> list[str]:
        """Gives the words that run a command on a node, for ``subprocess``."""
        return ["bash", str(SCRIPTS / "on.sh"), str(self.folder), node, *map(str, words)]

    def run(self, *words: object, cwd: Path | None = None, **environment: str) -> subprocess.CompletedProcess[str]:
        """Runs a command on the head node in a clean environment, to its end (at most five minutes)."""
        whole = child_environment(**environment)
        words_there = self.command("head", *words)
        return subprocess.run(words_there, cwd=cwd, env=whole, capture_output=True, text=True, timeout=300)

    def sbatch(self, script: Path, *options: object, cwd: Path | None = None, **environment: str) -> Job:
        """Submits a job.

        Args:
            script: The job script.
            options: Of ``sbatch`` before the script; words after it as a list at the end.
            cwd: Where it runs and leaves its log, the script's folder if not given.
            environment: Further variables for the job.
        """
        cwd = cwd or script.parent
        arguments = options[-1] if options and isinstance(options[-1], list) else []
        own = options[:-1] if arguments else options
        words = ("sbatch", "--parsable", *own, script, *arguments)
        done = self.run(*words, cwd=cwd, HOME=str(cwd), **environment)
        assert done.returncode == 0, done.stderr
        return Job(self, done.stdout.strip(), cwd)

    def kill_node(self, node: str) -> None:
        """Kills every process of a node at once, as a power failure does; SLURM is told, and need not wait for it."""
        subprocess.run(["bash", str(SCRIPTS / "kill_node.sh"), str(self.folder), node], check=True, timeout=60)
        self.run("scontrol", "update", f"NodeName={node}", "State=DOWN", "Reason=power")

    def revive_node(self, node: str) -> None:
        """Lets a killed node come back."""
        subprocess.run(self.command(node, "slurmd", "-N", node), check=True, timeout=60)

    def processes(self) -> dict[int, dict[str, str]]:
        """Lists the processes on the cluster: number outside of the cluster -> environment."""
        first = os.readlink(f"/proc/{int((self.folder / 'pid').read_text())}/ns/pid")
        found = {}
        for process in Path("/proc").glob("[0-9]*"):
            try:
                if os.readlink(process / "ns/pid") == first:
                    found[int(process.name)] = _environment(process)
            except OSError:
                continue  # it has ended
        return found


class Job:
    """A job, or a task of an array.

    Args:
        cluster: Where it runs.
        number: What ``sbatch`` said; ``33_0`` is a task of an array.
        folder: Its working directory.
    """

    def __init__(self, cluster: Cluster, number: str, folder: Path) -> None:
        self.cluster = cluster
        self.number = number
        self.folder = folder
        self.log_file: Path | None = None

    def facts(self) -> dict[str, str]:
        """Gives what SLURM knows of the job: ``JobState``, ``Restarts``, ``ExitCode``, ``StdOut`` and so on."""
        shown = self.cluster.run("scontrol", "show", "job", self.number, "--oneliner").stdout
        return dict(re.findall(r"(\w+)=(\S*)", shown.splitlines()[0])) if shown.strip() else {}

    @property
    def state(self) -> str:
        """``PENDING``, ``RUNNING``, ``COMPLETED``, ``FAILED``, ``TIMEOUT``, ``CANCELLED``, ``NODE_FAIL``, ..."""
        return self.facts().get("JobState", "UNKNOWN")

    @property
    def restarts(self) -> int:
        """How often SLURM has started it again."""
        return int(self.facts()["Restarts"])

    @property
    def exit_code(self) -> int:
        """Of the job script; 128 + the signal if it was killed by one."""
        code, killed_by = self.facts()["ExitCode"].split(":")
        return int(code) or (128 + int(killed_by) if int(killed_by) else 0)

    @property
    def log(self) -> str:
        """What the job has printed so far."""
        if self.log_file is None:
            self.log_file = Path(self.facts()["StdOut"])
        return self.log_file.read_text(errors="replace") if self.log_file.is_file() else ""

    def wait(self, *states: str, timeout: float = 300) -> None:
        """Waits for one of these states.

        Raises:
            TimeoutError: If none has come after ``timeout`` seconds; with the end of the log.
        """
        until(lambda: self.state in states, timeout, lambda: f"{states}, but {self._told()}")

    def finish(self, timeout: float = 400) -> str:
        """Waits for the end, restarts included, and gives the state that the job ended in.

        Raises:
            TimeoutError: If it has not ended after that time.
        """
        until(lambda: self.state in ENDED, timeout, lambda: f"the end, {self._told()}")
        return self.state

    def _told(self) -> str:
        """Gives state, SLURM's reason for it, the nodes, and the end of the log."""
        nodes = self.cluster.run("sinfo", "--Node", "--noheader", "--format=%N %T %G %E").stdout.strip()
        return f"{self.state} ({self.facts().get('Reason', '')}; {nodes}):\n{self.log[-4000:]}"

    def says(self, words: str, times: int = 1, timeout: float = 400) -> None:
        """Waits until the log has these words so many times.

        Raises:
            TimeoutError: After that time, or when the job has ended without them; with the end of the log.
        """
        until(
            lambda: self.log.count(words) >= times or self.state in ENDED,
            timeout,
            lambda: f"{words!r} in the log:\n{self.log[-4000:]}",
        )
        if self.log.count(words) < times:
            raise TimeoutError(f"{words!r} is not in the log of a job that is {self.state}:\n{self.log[-4000:]}")

    def restarted(self, times: int, timeout: float = 400) -> None:
        """Waits until SLURM has started it again so many times, and it runs.

        Raises:
            TimeoutError: After that time, with the end of the log.
        """
        until(
            lambda: (self.restarts >= times and self.state == "RUNNING") or self.state in ENDED,
            timeout,
            lambda: f"{times} restarts, but {self.restarts} and {self.state}:\n{self.log[-4000:]}",
        )
        if self.restarts < times:
            raise TimeoutError(f"{self.restarts} restarts of a job that is {self.state}:\n{self.log[-4000:]}")

    def gone(self, timeout: float = 60) -> None:
        """Waits until none of its processes is there.

        Raises:
            TimeoutError: After that time.
        """
        until(lambda: not self.ranks(), timeout, "the end of all ranks")

    def ranks(self) -> list[int]:
        """Lists the ranks' processes by rank; data workers and other children of theirs are left out.

        Which process is whose child is asked of the kernel's own records: an environment lies in the memory of its
        process, and while memory is short it cannot be read for a moment. A rank's workers once passed for it so.
        """
        found: dict[int, int] = {}
        for pid, environment in self.cluster.processes().items():
            if self._is_of_step(environment) and _is_python(pid) and not _is_python(_parent(pid)):
                found[int(environment["SLURM_PROCID"])] = pid
        return [found[rank] for rank in sorted(found)]

    def signal(self, number: signal.Signals, first: int = 0, skew: float = 0.0) -> None:
        """Sends a signal to the rank processes alone, to one of them before the others.

        Args:
            number: Which signal.
            first: The rank that gets it first.
            skew: Seconds until the others get it.
        """
        pids = self.ranks()
        os.kill(pids.pop(first), number)
        time.sleep(skew)
        for pid in pids:
            with suppress(ProcessLookupError):  # all of them may have stopped by the word of the first one
                os.kill(pid, number)

    def signal_rank(self, number: signal.Signals, rank: int) -> None:
        """Sends a signal to one rank's process alone."""
        os.kill(self.ranks()[rank], number)

    def signal_everything(self, number: signal.Signals) -> None:
        """Lets SLURM send a signal to all processes of the job's steps, as it does some time before the limit."""
        done = self.cluster.run("scancel", "--signal", number.name.removeprefix("SIG"), self.number)
        assert done.returncode == 0, done.stderr

    def end_in(self, seconds: int) -> None:
        """Sets the job's limit so that its time is over in this many seconds, or up to a minute later.

        Limits are whole minutes from the start: one set at submission may be over before the run has begun.
        """
        ran = self.facts()["RunTime"]
        hours, minutes, rest = (int(part) for part in ran.split(":"))
        limit = -(-(3600 * hours + 60 * minutes + rest + seconds) // 60)
        done = self.cluster.run("scontrol", "update", f"JobId={self.number}", f"TimeLimit={limit}")
        assert done.returncode == 0, done.stderr

    def cancel(self) -> None:
        """Ends the job (SIGTERM, and SIGKILL after ``KILL_WAIT``)."""
        self.cluster.run("scancel", self.number)

    def requeue(self) -> None:
        """Lets SLURM start it again, as it does with one that is preempted."""
        done = self.cluster.run("scontrol", "requeue", self.number)
        assert done.returncode == 0, done.stderr

    def _is_of_step(self, environment: dict[str, str]) -> bool:
        numbers = self.number.split("_")
        names = ["SLURM_ARRAY_JOB_ID", "SLURM_ARRAY_TASK_ID"] if len(numbers) == 2 else ["SLURM_JOB_ID"]
        return [environment.get(name) for name in names] == numbers and "SLURM_STEP_ID" in environment


def _environment(process: Path) -> dict[str, str]:
    """Reads the environment of a process under /proc; asks again while it lives and gives none.

    Raises:
        OSError: If it has ended.
    """
    for _ in range(READS):
        with suppress(OSError):
            lines = (process / "environ").read_bytes().decode(errors="replace").split("\0")
            if found := dict(line.split("=", 1) for line in lines if "=" in line):
                return found
        os.readlink(process / "exe")  # of one that has ended there is none
        time.sleep(0.01)
    raise OSError(f"{process}/environ cannot be read")


def _is_python(pid: int) -> bool:
    try:
        return Path(os.readlink(f"/proc/{pid}/exe")).name.startswith("python")
    except OSError:
        return False


def _parent(pid: int) -> int:
    try:
        return int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1])
    except OSError:
        return 0  # it has ended
