"""What a run has measured so far: snapshots on disk, each compared with the first of its probe, and one line each."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from lightning.pytorch.utilities import rank_zero_warn

from ...evaluation import mean_interval, shown_p
from ...foundation.run_names import IMPORTANCE, SUMMARY, step_name
from ...importance import Snapshot, compare
from ...importance.agreement import agreement
from ...importance.paired_losses import loss_changes
from ...importance.summary import SummaryFile, metric_values, summary_line


class ShiftHistory:
    """Keeps the measurements of a run: ``importance/<probe>/step=000120/`` and ``importance/summary.jsonl``.

    Args:
        estimators: That are measured.
        replicates: Bootstrap samples and half splits behind the intervals of the shift; 0 for none, and no paired test.

    Attributes:
        lines: What of the summary's lines the pictures need, the oldest first; the same on every rank.
        reference_steps: Probe -> step of the measurement that its shifts refer to.
    """

    def __init__(self, estimators: Sequence[str], replicates: int) -> None:
        self.estimators = estimators
        self.replicates = replicates
        self.lines: list[dict[str, Any]] = []
        self.reference_steps: dict[str, int] = {}
        self._references: dict[str, Snapshot] = {}

    def state_dict(self) -> dict[str, Any]:
        """Returns what a checkpoint keeps of it."""
        return {"history": self.lines, "reference_steps": self.reference_steps}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Takes it back from a checkpoint."""
        self.lines = list(state["history"])
        self.reference_steps = dict(state["reference_steps"])

    def go_on(self, run: Path | None, step: int) -> None:
        """Forgets, on rank zero, what was measured after a step, and loads a continued run's references.

        Args:
            run: Its directory; None keeps nothing on disk.
            step: Optimizer steps so far.
        """
        if run is None:
            return
        _summary(run).keep_until(step if self.lines else -1)
        for name, first in self.reference_steps.items():
            try:
                self._references[name] = Snapshot.load(run / IMPORTANCE / name / step_name(first))
            except (OSError, ValueError) as error:
                rank_zero_warn(f"importance: no shift will be logged for probe {name!r}: {error}")

    def keep(self, run: Path | None, snapshot: Snapshot, plain: bool) -> list[dict[str, Any]]:
        """Writes a snapshot, on rank zero, and compares it with the probe's first one.

        Args:
            run: Its directory; None writes nothing.
            snapshot: With the probe's name and the step in it.
            plain: Whether the probe is plain text.

        Returns:
            The summary's lines, one an estimator.
        """
        name = snapshot.meta["name"]
        if run:
            folder = run / IMPORTANCE / name
            folder.mkdir(parents=True, exist_ok=True)
            snapshot.save(folder / step_name(snapshot.step))
        if name not in self.reference_steps:
            self._references[name] = snapshot
        reference = self._references.get(name)
        common: dict[str, Any] = {"plain": plain}
        if reference and reference is not snapshot and len(snapshot.losses) > 1:
            common["loss_change"] = list(mean_interval(loss_changes(reference, snapshot).tolist()))
        lines = []
        for estimator in self.estimators:
            shift = compare(reference, snapshot, estimator, self.replicates) if reference else None
            causal = agreement(snapshot, estimator, reference if shift else None, self.replicates)
            lines.append(summary_line(snapshot, estimator, shift, causal) | common)
        return lines

    def note(self, step: int, lines: Sequence[dict[str, Any]]) -> dict[str, float]:
        """Takes a step's lines in, on every rank, and gives the figures by metric key."""
        for line in lines:
            self.reference_steps.setdefault(line["probe"], step)
        self.lines = [line for line in self.lines if line["step"] < step] + [_compact(line) for line in lines]
        return {key: value for line in lines for key, value in metric_values(line).items()}


def write_lines(run: Path | None, lines: list[dict[str, Any]]) -> None:
    """Adds lines to a run's summary, in place of those of the same step, probe and estimator."""
    if run and lines:
        _summary(run).put(lines)


def headline(step: int, lines: Sequence[dict[str, Any]]) -> str:
    """Says in one line what was measured at a step: each probe's loss, and its shift by the first estimator."""
    parts = []
    for name in dict.fromkeys(line["probe"] for line in lines):
        line = next(line for line in lines if line["probe"] == name)
        text = f"{name} loss {line['loss']:.3g}"
        if line["shares_of"]:
            text += f", shares {line['shares_of']}"
        if line["shift"] and line["shift"]["metrics"]["js"]["value"]:  # none is the reference itself
            js = line["shift"]["metrics"]["js"]
            text += f", {line['estimator']} shift {js['value']:.2g}"
            if js["p"] is not None:
                paired = f"paired p {shown_p(js['p'], line['shift']['p_floor'])}, noise alone {js['expected']:.2g}"
                text += f" ({paired}" + (f"; between halves {js['null_p95']:.2g})" if js["null_p95"] else ")")
        parts.append(text)
    return f"importance at step {step}: " + "; ".join(parts)


def _summary(run: Path) -> SummaryFile:
    return SummaryFile(run / IMPORTANCE / SUMMARY)


def _compact(line: dict[str, Any]) -> dict[str, Any]:
    """Keeps what of a summary line travels in checkpoints."""
    kept = {key: line[key] for key in ("step", "probe", "estimator", "loss", "total")}
    js = line["shift"]["metrics"]["js"]["value"] if line["shift"] else None
    return {**kept, "shares": list(line["shares"].values()), "js": js}
