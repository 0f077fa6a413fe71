"""From a run directory to a row."""

from __future__ import annotations

import fcntl
import json
from pathlib import Path
from typing import Any

from textkeep.evaluation import read_predictions, summarize
from textkeep.evaluation.divergences import read_divergences, summarize_divergences
from textkeep.evaluation.statistics import Interval, bootstrap_ratio, paired_bootstrap
from textkeep.foundation.files import replacing
from textkeep.importance import Snapshot, compare

PROBES = ("indomain_text", "heldout_text")
SCORES = ("speech_answer_loss", "speech_accuracy", "text_answer_loss", "text_accuracy", "hearing_gap")
DIVERGENCES = "evaluation/divergence"


class Results:
    """Lines of JSON, one an arm.

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
        """Names of the arms that need not run again."""
        return {line["arm"] for line in self.read() if "error" not in line}

    def put(self, line: dict[str, Any]) -> None:
        """Adds an arm's line in the place of an earlier one; several runners may do so at once."""
        with self.path.with_name(f".{self.path.name}.lock").open("a") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            lines = [*(other for other in self.read() if other["arm"] != line["arm"]), line]
            with replacing(self.path) as temporary:
                temporary.write_text("".join(json.dumps(row) + "\n" for row in lines), encoding="utf-8")


def read_run(directory: Path, start: Path, clock: Path) -> dict[str, Any]:
    """What a run learned, kept and cost.

    Args:
        directory: Of the run.
        start: Of the run that measured the untouched model; the run's own step 0 is preferred where it has one.
        clock: File of its ``StepClock``.

    Raises:
        OSError: If something is missing.
    """
    row: dict[str, Any] = json.loads(clock.read_text(encoding="utf-8"))
    last = f"step={row['steps']:06d}"
    row |= _scores(directory / "evaluation" / f"{last}.jsonl", _first(directory, start, "evaluation", ".jsonl"))
    for probe in PROBES:
        folder = f"importance/{probe}"
        row |= _importance(probe, directory / folder / last, _first(directory, start, folder))
    row["start"] |= _divergences(_first(directory, start, DIVERGENCES, ".jsonl"))
    return row | _divergences(directory / DIVERGENCES / f"{last}.jsonl")


def _first(directory: Path, start: Path, folder: str, suffix: str = "") -> Path:
    own = directory / folder / f"step=000000{suffix}"
    return own if own.exists() else start / folder / f"step=000000{suffix}"


def _scores(after: Path, before: Path) -> dict[str, Any]:
    row: dict[str, Any] = {}
    summary = summarize(read_predictions(after), read_predictions(before))
    for key in (*SCORES, "text_loss_change", "speech_loss_change"):
        if key in summary.values:
            row[key] = [summary.values[key], *summary.intervals[key]]
    untouched = summarize(read_predictions(before))
    row["start"] = {key: [untouched.values[key], *untouched.intervals[key]] for key in SCORES}
    return row


def _importance(probe: str, after: Path, before: Path) -> dict[str, Any]:
    """Loss on a probe and the shift of its importance; no shift where the LLM has other layers than at the start."""
    first, last = Snapshot.load(before), Snapshot.load(after)
    losses = dict(zip(first.ids, first.losses.tolist(), strict=True))
    change = paired_bootstrap([losses[i] for i in last.ids], last.losses.tolist())
    row: dict[str, Any] = {
        "loss": list(_mean(last)),
        "loss_change": list(change),
        "start_loss": list(_mean(first)),
    }
    if [matrix.name for matrix in first.table] == [matrix.name for matrix in last.table]:
        shift = compare(first, last, "taylor", replicates=500)
        row["js_null"] = shift.metrics["js"].null_p95
        for name in ("js", "log_total_ratio"):
            estimate = shift.metrics[name]
            row[name] = [estimate.value, estimate.low, estimate.high]
    return {f"{probe}/{key}": value for key, value in row.items()}


def _mean(snapshot: Snapshot) -> Interval:
    return bootstrap_ratio(snapshot.losses.tolist(), [1.0] * len(snapshot.losses))


def _divergences(path: Path) -> dict[str, list[float]]:
    """F and M with their intervals."""
    summary = summarize_divergences(read_divergences(path))
    return {key: [value, *summary.intervals[key]] for key, value in summary.values.items()}
