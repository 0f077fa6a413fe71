"""An ablation compared with the gradient's scores, in the last measurement of a probe."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING

from ..measurements import Measurement, RankedRecord
from ..run import Run
from .paired_p import PairedP, paired_p

if TYPE_CHECKING:
    from ...importance import Snapshot


@dataclass(frozen=True)
class Beside:
    """An estimator and the ablation of the same examples.

    Attributes:
        probe: Where both were measured.
        first: Of the estimator, the first measurement.
        last: The last one.
        ablation: The ablation's last one.
        tests: Paired tests of the two shifts.
    """

    probe: str
    first: Measurement
    last: Measurement
    ablation: Measurement
    tests: tuple[PairedP | None, PairedP | None]

    @property
    def moved(self) -> bool:
        """Whether there can be a shift: more than one measurement."""
        return self.first["step"] != self.last["step"] and all(x.get("shift") for x in (self.last, self.ablation))


def beside_ablations(run: Run) -> Iterator[Beside]:
    """Yields each probe's estimators that were compared with an ablation."""
    for probe, estimator in run.importance.pairs:
        lines = run.importance.of(probe, estimator)
        causal = lines[-1].get("causal")
        found = run.importance.of(probe, causal["ablation"]) if causal else []
        if found and found[-1]["step"] == lines[-1]["step"]:
            tests = tuple(_test(run, line) for line in (lines[-1], found[-1]))
            yield Beside(probe, lines[0], lines[-1], found[-1], (tests[0], tests[1]))


def _test(run: Run, line: Measurement) -> PairedP | None:
    shift = line.get("shift")
    if shift is None:
        return None
    probe, estimator = line["probe"], line["estimator"]
    steps = run.importance.of(probe, estimator)[0]["step"], line["step"]
    return paired_p(shift, estimator, partial(ends, run, probe, steps))


def ends(run: Run, probe: str, steps: tuple[int, int]) -> tuple[Snapshot | None, Snapshot | None]:
    """Loads the snapshots of the first and the last step of a shift."""
    return run.importance.snapshot(probe, steps[0]), run.importance.snapshot(probe, steps[1])


def ranked(found: RankedRecord | None) -> str:
    """Formats a rank correlation with its interval; a dash if there is none."""
    if found is None:
        return "-"
    limits = f" [{found['low']:.2f}, {found['high']:.2f}]" if found["low"] is not None else ""
    return f"{found['value']:.2f}{limits}"


def shifted(line: Measurement, test: PairedP | None) -> str:
    """Formats the JS distance of a shift with its interval and p-value; a dash without a shift."""
    shift = line.get("shift")
    if shift is None:
        return "-"
    js = shift["metrics"]["js"]
    limits = f" [{js['low']:.2g}, {js['high']:.2g}]" if js["low"] is not None else ""
    return f"{js['value']:.2g}{limits}{f', {test}' if test is not None else ''}"
