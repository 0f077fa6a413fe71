"""From a run directory to a row."""

from __future__ import annotations

import fcntl
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from textkeep.evaluation import Prediction, summarize
from textkeep.evaluation.divergences import read_divergences, summarize_divergences
from textkeep.evaluation.statistics import Interval, bootstrap_ratio, paired_bootstrap
from textkeep.foundation.files import replacing
from textkeep.foundation.run_names import DIVERGENCE, records_name
from textkeep.importance import Snapshot, compare
from textkeep.runs import Run
from textkeep.runs.evaluations import Evaluation

PROBES = ("indomain_text", "heldout_text")
SCORES = ("speech_answer_loss", "speech_accuracy", "text_answer_loss", "text_accuracy", "hearing_gap")


class Results:
    """JSON lines, one per arm.

    Args:
        path: The file.
    """

    def __init__(self, path: Path) -> None:
        self.path = path

    def read(self) -> list[dict[str, Any]]:
        """All lines."""
        if not self.path.is_file():
            return []
        return [json.loads(text) for text in self.path.read_text(encoding="utf-8").splitlines()]

    def finished(self) -> set[str]:
        """Names of the finished arms."""
        return {line["arm"] for line in self.read() if "error" not in line}

    def put(self, line: dict[str, Any]) -> None:
        """Adds an arm's line, replacing an earlier one; several runners may do so at once."""
        with self.path.with_name(f".{self.path.name}.lock").open("a") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            lines = [*(other for other in self.read() if other["arm"] != line["arm"]), line]
            with replacing(self.path) as temporary:
                temporary.write_text("".join(json.dumps(row) + "\n" for row in lines), encoding="utf-8")


def read_run(directory: Path, start: Path, clock: Path) -> dict[str, Any]:
    """What a run learned, kept and cost.

    Args:
        directory: Of the run.
        start: Of the run that measured the untouched model; the run's own step 0 is preferred if it has one.
        clock: File of its ``StepClock``.

    Raises:
        OSError: If something is missing.
    """
    row: dict[str, Any] = json.loads(clock.read_text(encoding="utf-8"))
    run, last = Run.open(directory), row["steps"]
    row |= _scores(run.evaluation("val").predictions(last), _start(run, start).predictions(0))
    for probe in PROBES:
        row |= _importance(probe, run, start, last)
    row["start"] |= _divergences(_start(run, start, DIVERGENCE), 0)
    return row | _divergences(run.evaluation("val", DIVERGENCE), last)


def _start(run: Run, start: Path, name: str = "") -> Evaluation:
    """The evaluations that contain step 0: the run's own if it measured that."""
    own = run.evaluation("val", name)
    return own if 0 in own.steps else Run.open(start).evaluation("val", name)


def _scores(after: Sequence[Prediction], before: Sequence[Prediction]) -> dict[str, Any]:
    row: dict[str, Any] = {}
    summary = summarize(after, before)
    for key in (*SCORES, "text_loss_change", "speech_loss_change"):
        if key in summary.values:
            row[key] = [summary.values[key], *summary.intervals[key]]
    untouched = summarize(before)
    row["start"] = {key: [untouched.values[key], *untouched.intervals[key]] for key in SCORES}
    return row


def _importance(probe: str, run: Run, start: Path, step: int) -> dict[str, Any]:
    """Loss on a probe and the shift of its importance; no shift if the LLM has other layers than at the start."""
    first = run.importance.snapshot(probe, 0) or Run.open(start).importance.snapshot(probe, 0)
    last = run.importance.snapshot(probe, step)
    if first is None or last is None:
        raise FileNotFoundError(f"{run.path}: no importance of {probe} at steps 0 and {step}")
    losses = dict(zip(first.ids, first.losses.tolist(), strict=True))
    change = paired_bootstrap([losses[i] for i in last.ids], last.losses.tolist())
    row: dict[str, Any] = {
        "loss": list(_mean(last)),
        "loss_change": list(change),
        "start_loss": list(_mean(first)),
    }
    if [matrix.name for matrix in first.table] == [matrix.name for matrix in last.table]:
        shift = compare(first, last, "taylor", replicates=500)
        js = shift.metrics["js"]
        row |= {"js_null": js.null_p95, "js_p": js.p, "js_expected": js.expected, "js_corrected": js.corrected}
        for name in ("js", "log_total_ratio"):
            estimate = shift.metrics[name]
            row[name] = [estimate.value, estimate.low, estimate.high]
    return {f"{probe}/{key}": value for key, value in row.items()}


def _mean(snapshot: Snapshot) -> Interval:
    return bootstrap_ratio(snapshot.losses.tolist(), [1.0] * len(snapshot.losses))


def _divergences(measured: Evaluation, step: int) -> dict[str, list[float]]:
    """F and M with their intervals."""
    summary = summarize_divergences(read_divergences(measured.folder / records_name(step)))
    return {key: [value, *summary.intervals[key]] for key, value in summary.values.items()}
