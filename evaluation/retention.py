"""The result of one evaluation over paired items: accuracies, answer losses, hearing gap, and change since step 0."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ..foundation.files import write_json_lines
from ..foundation.run_names import SUMMARY, records_name, step_of
from .paired_proportions import paired_difference, paired_ratio
from .predictions import Prediction, read_lines, read_predictions, write_predictions
from .statistics import NOT_NEGATIVE, Interval, bootstrap_ratio, share_interval, wilson_interval

MODALITIES = ("speech", "text")


@dataclass
class RetentionSummary:
    """Metrics of one evaluation.

    Attributes:
        values: ``<modality>_accuracy`` (share of items with a gold answer in the response), ``<modality>_exact`` and
            ``<modality>_f1`` (SQuAD's), ``<modality>_answer_loss`` (nats per answer token), ``hearing_gap`` (nats per
            answer token), and, if step 0 is known, ``<modality>_accuracy_change``, ``<modality>_loss_change`` and
            ``<modality>_accuracy_kept`` (ratio).
        intervals: 95 % intervals of the same keys: Wilson for shares of items, Tango for a change of them, Bonett and
            Price for a ratio, bootstrap over items for losses.
        items: Number of items behind the figures.
    """

    values: dict[str, float] = field(default_factory=dict)
    intervals: dict[str, tuple[float, float]] = field(default_factory=dict)
    items: int = 0

    def add(self, key: str, interval: Interval) -> None:
        """Stores an estimate with its limits."""
        self.values[key] = interval.estimate
        self.intervals[key] = (interval.low, interval.high)

    def interval(self, key: str) -> Interval:
        """Returns an estimate with its limits."""
        return Interval(self.values[key], *self.intervals[key])


def paired(records: Sequence[Prediction]) -> dict[str, list[Prediction]]:
    """Sorts records by modality, in one order of items, and keeps the items that every modality has.

    If only one modality was evaluated, its items are all kept.
    """
    by_modality = {m: {r.id: r for r in records if r.modality == m} for m in MODALITIES}
    present = [m for m in MODALITIES if by_modality[m]]
    if not present:
        return {}
    ids = sorted(set.intersection(*(set(by_modality[m]) for m in present)))
    return {m: [by_modality[m][identity] for identity in ids] for m in present}


def summarize(records: Sequence[Prediction], baseline: Sequence[Prediction] = ()) -> RetentionSummary:
    """Computes the metrics of one evaluation.

    Args:
        records: Predictions of all items in both modalities.
        baseline: The base model's predictions; only items that occur in both are compared.
    """
    summary = RetentionSummary()
    before = {(r.id, r.modality): r for r in baseline}
    for modality, rows in paired(records).items():
        summary.items = len(rows)
        _add_scores(summary, modality, rows)
        _add_changes(summary, modality, [(before[k], r) for r in rows if (k := (r.id, modality)) in before])
        if modality == "speech":
            _add_hearing_gap(summary, rows)
    return summary


def _add_scores(summary: RetentionSummary, modality: str, rows: Sequence[Prediction]) -> None:
    scored = [r.correct for r in rows if r.correct is not None]
    if scored:
        summary.add(f"{modality}_accuracy", wilson_interval(sum(scored), len(scored)))
    exact = [r.exact for r in rows if r.exact is not None]
    if exact:
        summary.add(f"{modality}_exact", wilson_interval(sum(exact), len(exact)))
    overlap = [r.f1 for r in rows if r.f1 is not None]
    if overlap:
        summary.add(f"{modality}_f1", share_interval(overlap, [1.0] * len(overlap)))
    losses = [(r.loss * r.tokens, r.tokens) for r in rows if r.loss is not None and r.tokens]
    if losses:
        summary.add(f"{modality}_answer_loss", _ratio(losses, NOT_NEGATIVE))


def accuracy_changes(modality: str, pairs: Sequence[tuple[Prediction, Prediction]]) -> dict[str, Interval]:
    """Returns change and ratio of the accuracy by metric name, as far as the items allow.

    Args:
        modality: Modality of the records.
        pairs: Records of the same items, before and after.
    """
    scored = [(b.correct, a.correct) for b, a in pairs if b.correct is not None and a.correct is not None]
    if not scored:
        return {}
    before, after = [b for b, _ in scored], [a for _, a in scored]
    found = {f"{modality}_accuracy_change": paired_difference(before, after)}
    return found | ({f"{modality}_accuracy_kept": paired_ratio(before, after)} if any(before) else {})


def _add_changes(summary: RetentionSummary, modality: str, pairs: Sequence[tuple[Prediction, Prediction]]) -> None:
    for key, interval in accuracy_changes(modality, pairs).items():
        summary.add(key, interval)
    losses = [
        ((a.loss - b.loss) * a.tokens, a.tokens)
        for b, a in pairs
        if a.loss is not None and b.loss is not None and a.tokens
    ]
    if losses:
        summary.add(f"{modality}_loss_change", _ratio(losses))


def _add_hearing_gap(summary: RetentionSummary, rows: Sequence[Prediction]) -> None:
    """Adds the loss with another item's clip minus that with the right one: zero if a model does not listen."""
    gaps = [
        ((r.shuffled_loss - r.loss) * r.tokens, r.tokens)
        for r in rows
        if r.loss is not None and r.shuffled_loss is not None and r.tokens
    ]
    if gaps:
        summary.add("hearing_gap", _ratio(gaps))


def _ratio(pairs: Sequence[tuple[float, float]], bounds: tuple[float, float] = (-math.inf, math.inf)) -> Interval:
    return bootstrap_ratio([top for top, _ in pairs], [bottom for _, bottom in pairs], bounds=bounds)


Summarize = Callable[[Sequence[Prediction], Sequence[Prediction]], RetentionSummary]


def store_evaluation(
    folder: Path | None,
    stage: str,
    step: int,
    records: Sequence[Prediction],
    seconds: float,
    summarize: Summarize = summarize,
) -> RetentionSummary:
    """Summarises an evaluation against step 0's and writes both records and summary, atomically.

    Args:
        folder: Receives ``step=000120.jsonl`` (all records) and a line in ``summary.jsonl``, replacing any earlier line
            of that step; nothing is written or read if it is None.
        stage: Prefix of the metric keys in the summary, ``val``, ``test``, or one of these and the name of a set.
        step: Optimizer steps taken.
        records: Predictions of all items.
        seconds: Time the evaluation took.
        summarize: Computes the metrics from the records and step 0's.
    """
    if folder is None:
        return summarize(records, ())
    start = folder / records_name(0)
    summary = summarize(records, read_predictions(start) if step and start.is_file() else ())
    write_predictions(folder / records_name(step), records)
    put_summary(folder, step, summary, seconds, f"{stage}/")
    return summary


def put_summary(folder: Path, step: int, summary: RetentionSummary, seconds: float, prefix: str) -> None:
    """Writes a line of ``summary.jsonl``, replacing any earlier line of that step.

    Args:
        folder: Holds the file.
        step: Optimizer steps taken.
        summary: The figures.
        seconds: Time the evaluation took.
        prefix: Prefix of the metric keys.
    """
    line = {
        "step": step,
        "items": summary.items,
        "seconds": round(seconds, 3),
        **{f"{prefix}{key}": value for key, value in summary.values.items()},
        "intervals": {f"{prefix}{key}": limits for key, limits in summary.intervals.items()},
    }
    others = [row for row in _summary(folder) if row["step"] != step]
    write_json_lines(sorted([*others, line], key=lambda row: row["step"]), folder / SUMMARY)


def forget_after(folder: Path, step: int) -> None:
    """Drops evaluations of later steps, which a run that continues from ``step`` repeats."""
    rows = _summary(folder)
    kept = [row for row in rows if row["step"] <= step]
    if len(kept) < len(rows):
        write_json_lines(kept, folder / SUMMARY)
    for records in folder.glob("step=*.jsonl"):  # one that was interrupted before its line was written has none
        if (step_of(records.name) or 0) > step:
            records.unlink(missing_ok=True)


def _summary(folder: Path) -> list[dict[str, Any]]:
    path = folder / SUMMARY
    return [row for _, row in read_lines(path)] if path.is_file() else []
