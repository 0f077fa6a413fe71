"""A run that measured a probe of questions and one of plain text, before and after training."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from textkeep.evaluation import mean_interval
from textkeep.importance import Matrix, compare
from textkeep.importance.paired_losses import loss_changes
from textkeep.importance.summary import SummaryFile, summary_line

from .report_run import made_snapshot

LAYERS = 6
QUESTIONS, PASSAGES = "questions", "passages"


def write_probes(
    run: Path,
    changes: Mapping[str, Sequence[float]],
    moved: Sequence[str] = (),
    written: bool = True,
    step: int = 20,
) -> Path:
    """Writes snapshots and their summary.

    Args:
        run: The run directory.
        changes: Probe -> the change of each example's loss, nats per token.
        moved: Probes whose importance moved to the next layers, in every example.
        written: Whether the lines know what plain text is and how losses changed; those of earlier versions do not.
        step: Of the second measurement.
    """
    table = [Matrix(f"model.layers.{i}.q", (8, 8), i, "q") for i in range(LAYERS)]
    lines: list[dict[str, Any]] = []
    for seed, (probe, losses) in enumerate(changes.items()):
        rng = np.random.default_rng(seed)
        before = np.linspace(1.0, 2.0, LAYERS)
        after = before[::-1] if probe in moved else before
        first = made_snapshot(table, before, 0, probe, LAYERS, seed, len(losses))
        last = made_snapshot(table, after, step, probe, LAYERS, seed, len(losses))
        if probe not in moved:  # noise, so that the examples are not the very same
            for scores in last.examples.values():
                scores *= rng.lognormal(0.0, 0.1, scores.shape)
        last.losses = first.losses + np.asarray(losses)
        for snapshot in (first, last):
            snapshot.save(run / "importance" / probe / f"step={snapshot.step:06d}")
            shift = compare(first, snapshot, "taylor", replicates=50)
            more: dict[str, Any] = {"plain": probe == PASSAGES}
            if snapshot is last:
                more["loss_change"] = list(mean_interval(loss_changes(first, last)))
            lines.append(summary_line(snapshot, "taylor", shift) | (more if written else {}))
    SummaryFile(run / "importance" / "summary.jsonl").write(lines)
    return run
