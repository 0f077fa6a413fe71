"""One run on a two-node SLURM cluster, stopped in every way possible there and restarted each time."""

from __future__ import annotations

import random
import signal
import time
from collections.abc import Callable
from pathlib import Path

from tests.support.cluster_runs import TWO_NODES, write_job
from tests.support.slurm_cluster import ENDED, Cluster, Job, until

from .killing import PATIENCE, HungError, Moment, fit_command, reached
from .run import EARLY, Soak, Telling
from .timeline import VARIABLE, read_timeline

HUNG = 300.0
"""Seconds after which a run that was asked to stop counts as hung: deadlocks last forever, loading takes long."""
KILL_WAIT = 900
"""Seconds from SLURM's SIGTERM to its SIGKILL, long enough for a hang to be noticed first."""
SKEWS = (0.0, 0.15, 0.25)
Disturbance = Callable[[Cluster, Job], None]


def _apart(number: signal.Signals, first: int, skew: float) -> Disturbance:
    return lambda cluster, job: job.signal(number, first, skew)


def _fails(cluster: Cluster, job: Job) -> None:
    cluster.kill_node("node2")
    cluster.revive_node("node2")


def _killed(cluster: Cluster, job: Job) -> None:
    job.signal_rank(signal.SIGKILL, 1)


DISTURBANCES: dict[str, Disturbance] = {
    **{
        f"{number.name}, rank {first} {round(skew * 1000)} ms before the other": _apart(number, first, skew)
        for number in (signal.SIGUSR1, signal.SIGTERM)
        for skew in SKEWS
        for first in (0, 1)
    },
    "SIGUSR1 to every process": lambda cluster, job: job.signal_everything(signal.SIGUSR1),
    "scontrol requeue": lambda cluster, job: job.requeue(),
    "a node fails": _fails,
    "kill -9 of a rank": _killed,
}
"""What happens to the run, by name; after those that end the job, it is requeued."""


class ClusterSoak(Soak):
    """A trial whose run of two ranks is disturbed on a cluster.

    Args:
        folder: For the cluster, models, data and both run directories.
        steps: Optimizer steps of the run.
        workers: Processes that read, per rank.
        kinds: Only disturbances whose names contain this.

    Raises:
        ValueError: If no disturbance's name does.
    """

    def __init__(self, folder: Path, steps: int, workers: int = 0, kinds: str = "") -> None:
        super().__init__(folder, steps, workers, processes=2, asked=True)
        self.kinds = [name for name in DISTURBANCES if kinds in name]
        if not self.kinds:
            raise ValueError(f"no disturbance is called {kinds!r}; allowed: part of one of: {'; '.join(DISTURBANCES)}")

    def disturbed(self, times: int, seed: int) -> Telling:
        """Trains the run on its own cluster.

        Args:
            times: Number of disturbances; fewer if it finishes before.
            seed: Of the kinds and the moments.

        Raises:
            HungError: If it does not stop, or is not restarted.
            RuntimeError: If it fails on its own.
            UnavailableError: If no cluster can be set up here.
        """
        rng, told, started = random.Random(seed), Telling(), time.monotonic()
        names = self.kinds * -(-times // len(self.kinds))
        rng.shuffle(names)
        cluster = Cluster.up(self.folder / "cluster", KILL_WAIT=KILL_WAIT)
        try:
            job = self._send(cluster)
            for attempt, name in enumerate(names[:times]):
                moment = self._draw(times - attempt, rng)
                if not self._comes_to(job, moment):
                    print(f"attempt {attempt + 1} came to the end of the run before {moment}", flush=True)
                    break
                seconds = self._disturb(cluster, job, name)
                told.kills.append(f"{name} at {moment}, {seconds:.1f} s")
                print(f"{attempt + 1}/{times}: {told.kills[-1]}", flush=True)
            if job.finish(PATIENCE) != "COMPLETED":
                raise RuntimeError(f"the job is {job.state}:\n{job.log[-4000:]}")
            told.codes.append(job.exit_code)
        finally:
            cluster.down()
        told.seconds = time.monotonic() - started
        return told

    def _draw(self, left: int, rng: random.Random) -> Moment:
        """Draws a place among the hooks of the undisturbed run: nodes share cores here, so time means little."""
        if rng.random() < EARLY:
            return Moment(None, rng.uniform(0.0, self._startup))
        done = self._batches_saved()
        ahead = [event for event in self._timeline if event.batches >= done]
        place = int(rng.uniform(0.0, 2.0 * len(ahead) / (left + 1)))
        return Moment(ahead[min(place, len(ahead) - 1)], rng.uniform(0.0, 0.5))

    def _send(self, cluster: Cluster) -> Job:
        words = " ".join([*fit_command(self.config, self.parts), TWO_NODES])
        lines = f"export {VARIABLE}={self.folder / 'parts.timeline'}\nsrun --kill-on-bad-exit=1 {words}"
        return cluster.sbatch(write_job(self.folder, lines))

    def _comes_to(self, job: Job, moment: Moment) -> bool:
        """Waits until the attempt gets there; False if it ended before."""
        read = len(job.log)
        path = self.folder / "parts.timeline"
        start = path.stat().st_size if path.is_file() else 0
        until(lambda: len(job.ranks()) == 2 or job.state in ENDED, PATIENCE, "the ranks")

        def there() -> bool:
            events, _ = read_timeline(path, start)
            return any(reached(event, moment.event) for event in events) or job.state in ENDED

        if moment.event is not None:
            until(there, PATIENCE, lambda: f"{moment}:\n{job.log[read:][-4000:]}")
        time.sleep(moment.delay)
        # Checked more than once: when memory is short, /proc may not show an existing process.
        until(lambda: len(job.ranks()) == 2 or job.state in ENDED, PATIENCE, "both ranks")
        return job.state not in ENDED

    def _disturb(self, cluster: Cluster, job: Job, name: str) -> float:
        """Returns the seconds until all ranks had ended and the job was requeued."""
        restarts, before, asked = job.restarts, set(job.ranks()), time.monotonic()
        DISTURBANCES[name](cluster, job)
        try:
            until(lambda: not before & set(job.ranks()), HUNG, "the end of the ranks")
        except TimeoutError as error:
            raise HungError(f"{name}: {error}\n{job.log[-4000:]}") from error
        seconds = time.monotonic() - asked
        until(lambda: job.restarts > restarts or job.state in ENDED, PATIENCE, lambda: job.log[-4000:])
        if job.restarts == restarts and job.state != "COMPLETED":
            job.requeue()
            until(lambda: job.restarts > restarts, PATIENCE, lambda: job.log[-4000:])
        return seconds
