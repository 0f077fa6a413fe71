"""What a pod of Kubernetes is to a run: the manifest's command as process 1, evicted, and started again on one volume.

There is no Kubernetes here. What it does to the processes of a container is the kernel's: a PID namespace, whose first
process has no default handlers, must reap what it inherits, gets SIGTERM, and is killed with everything in it after
the grace period.
"""

from __future__ import annotations

import os
import re
import signal
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import yaml

from tests.support.cluster_runs import BIN, TinyRun
from tests.support.house import ROOT
from tests.support.processes import child_environment

PAGE = (ROOT / "docs/cluster.md").read_text(encoding="utf-8")
(MANIFEST,) = (yaml.safe_load(text) for text in re.findall(r"```yaml\n(.*?)```", PAGE, re.DOTALL))
POD = MANIFEST["spec"]["template"]["spec"]
(CONTAINER,) = POD["containers"]
NAMESPACE = ["unshare", "--pid", "--fork", "--kill-child", "--mount-proc"]


def pod_command(run: TinyRun) -> list[str]:
    """Gives the container's command for two processes and the tiny run's config."""
    words = [*CONTAINER["command"], *CONTAINER["args"], "--trainer.default_root_dir", "runs/pod"]
    words[words.index("--nproc-per-node=8")] = "--nproc-per-node=2"
    words[words.index("--trainer.devices") + 1] = "2"
    words[words.index("my.yaml")] = str(run.config)
    return words


@contextmanager
def pod(run: TinyRun, log: Path) -> Iterator[subprocess.Popen[bytes]]:
    """Runs the container; what is left of it is killed."""
    environment = child_environment(PYTHONPATH=str(ROOT), PATH=f"{BIN}:{os.environ['PATH']}", PYTHONUNBUFFERED="1")
    with log.open("wb") as output:
        process = subprocess.Popen(
            [*NAMESPACE, *pod_command(run)], cwd=run.folder, env=environment, stdout=output, stderr=output
        )
    try:
        yield process
    finally:
        process.kill()
        process.wait()


def evict(process: subprocess.Popen[bytes]) -> None:
    """Sends SIGTERM to the container's process 1, and waits until all of the container has ended by itself."""
    (first,) = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
    os.kill(int(first), signal.SIGTERM)
    process.wait(240)


def says(log: Path, words: str) -> None:
    end = time.monotonic() + 240
    while words not in log.read_text(errors="replace"):
        assert time.monotonic() < end, log.read_text(errors="replace")[-4000:]
        time.sleep(0.05)


def namespaces() -> bool:
    """Whether this user may make a PID namespace."""
    return subprocess.run([*NAMESPACE, "true"], capture_output=True).returncode == 0


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_an_evicted_pod_ends_by_itself_and_the_next_goes_on_exactly(tmp_path: Path) -> None:
    if not namespaces():
        pytest.skip("no PID namespaces for this user")
    run = TinyRun.write(tmp_path, steps=12, processes=2)
    run.leave_alone()
    logs = [tmp_path / f"pod{place}.log" for place in range(3)]
    for log, place in zip(logs, ("MARK train 2", "MARK validate"), strict=False):
        with pod(run, log) as process:
            says(log, place)
            evict(process)
            assert process.returncode != 0  # so that the Job starts another pod
        assert "saved" in log.read_text()
    with pod(run, logs[2]) as process:
        assert process.wait(400) == 0, logs[2].read_text()[-4000:]
    assert "continuing runs/pod from" in logs[2].read_text()
    assert run.differences("pod", "".join(log.read_text() for log in logs)) == []
