"""The first screen of a page about runs, in words for a console."""

from __future__ import annotations

from collections.abc import Sequence

from ..run import Run
from .outcome import outcome_lines, outcomes
from .verdict import headline, verdict


def words(runs: Sequence[Run]) -> list[str]:
    """Puts each run's verdict into a sentence; for several runs, lost text and speech understanding come first.

    Args:
        runs: As for :func:`~textkeep.runs.report.run_page.run_page`.
    """
    found = outcomes(runs) if len(runs) > 1 else []
    lines = outcome_lines(found)
    told = any(outcome.text for outcome in found)
    for run in runs:
        if (findings := verdict(run)) and (sentence := headline(findings, told)):
            lines.append(f"{run.name}: {sentence}")
    return lines
