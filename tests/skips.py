"""A test that is skipped fails, unless it stands here: what nobody runs anywhere protects nothing.

``make test`` and ``make slow`` install the extras and fetch the assets that tests need. What they cannot bring is
listed below, as narrowly as can be: a test, or a file or folder whose tests all need it.
"""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Generator

import pytest

CHROMIUM = "needs a Chromium, which no package of PyPI brings"
CLUSTER = "needs a cluster of SLURM: root, Debian's slurm-wlm and munge, iproute2, and leave to make namespaces"
ALLOWED: dict[str, str] = {
    "tests/cluster/": CLUSTER,
    "tests/runs/test_report_browser.py": CHROMIUM,
    "tests/runs/test_study_figures.py::test_figures_are_written_as_files": CHROMIUM,
    "tests/lightning_modules/test_qlora.py::test_it_learns_over_four_bit_weights": (
        "bitsandbytes packs weights on a GPU; `pip install 'textkeep[qlora]'`"
    ),
    "tests/lightning_modules/test_adamw_8bit.py": "needs bitsandbytes: `pip install 'textkeep[adamw-8bit]'`",
}
"""Test, file, or folder with a slash at its end -> why it may be skipped."""

if shutil.which("apt-get") is None:
    DEBIAN = "flite, WordNet and the sources of plain text are packages of Debian, fetched by apt-get"
    ALLOWED |= {
        "tests/preparation/test_speak_engines.py": DEBIAN,
        "tests/preparation/test_facts_alignment.py": DEBIAN,
        "tests/preparation/test_plain_text.py::test_the_sets_are_made_anew_to_the_last_byte": DEBIAN,
    }

if subprocess.run(["unshare", "-m", "true"], capture_output=True).returncode if shutil.which("unshare") else True:
    ALLOWED |= {
        "tests/callbacks/test_checkpoint_disk.py": "a small file system can be mounted by root only",
        "tests/cli/test_pod.py": "a PID namespace can be made by root only",
    }


def judged(nodeid: str, longrepr: object) -> str | None:
    """What is said of a skip that is not allowed; None if it is.

    Args:
        nodeid: Of the test or file.
        longrepr: pytest's (file, line, reason) of the skip.
    """
    if any(nodeid == name or nodeid.startswith((f"{name}::", f"{name}[")) for name in ALLOWED):
        return None
    if any(nodeid.startswith(name) for name in ALLOWED if name.endswith("/")):
        return None
    reason = longrepr[2] if isinstance(longrepr, tuple) else str(longrepr)
    return f"{nodeid} was skipped and is not listed in tests/skips.py ({reason}); `make test` brings what tests need"


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport() -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Skips at run time and by ``skipif``; an expected failure is no skip."""
    report = yield
    if report.skipped and not hasattr(report, "wasxfail") and (fault := judged(report.nodeid, report.longrepr)):
        report.outcome, report.longrepr = "failed", fault
    return report


@pytest.hookimpl(wrapper=True)
def pytest_make_collect_report() -> Generator[None, pytest.CollectReport, pytest.CollectReport]:
    """Skips of a whole file."""
    report = yield
    if report.outcome == "skipped" and (fault := judged(report.nodeid, report.longrepr)):
        report.outcome, report.longrepr = "failed", fault
    return report
