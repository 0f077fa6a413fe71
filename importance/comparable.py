"""Whether two snapshots can be compared, and whether their examples allow a paired test."""

from __future__ import annotations

from typing import Any

import numpy as np

from .snapshot import Snapshot


def check_comparable(before: Snapshot, after: Snapshot, estimator: str) -> None:
    """Refuses snapshots that differ in probe, masking, settings or matrices.

    Raises:
        ValueError: Naming what differs.
    """
    for snapshot in (before, after):
        if estimator not in snapshot.estimators:
            have = ", ".join(snapshot.estimators)
            raise ValueError(f"importance: step {snapshot.step} has no {estimator!r}; it has {have}")
        if not np.isfinite(snapshot.scores(estimator)).all():
            raise ValueError(f"importance: step {snapshot.step} has scores of {estimator!r} that are not finite")
    pairs: dict[str, tuple[Any, Any]] = {
        "probe (other examples, answers or tokens)": tuple(s.meta["probe"]["fingerprint"] for s in (before, after)),
        "masking": (before.meta["masking"], after.meta["masking"]),
        "normalisation": (before.meta["normalisation"], after.meta["normalisation"]),
        "matrices": ([(m.name, m.shape) for m in before.table], [(m.name, m.shape) for m in after.table]),
        "groups": ([u.name for u in before.units(estimator)], [u.name for u in after.units(estimator)]),
    }
    settings = ["include", "autocast", *before.facts(estimator)["options"]]
    for key in settings:
        pairs[f"option {key}"] = tuple(_plain(s.meta["options"].get(key)) for s in (before, after))
    for what, (left, right) in pairs.items():
        if left != right:
            shown = f": {left!r} and {right!r}" if what.startswith("option") else ""
            unpaired = "; no paired test is possible" if what.startswith("probe") else ""
            raise ValueError(f"importance: snapshots cannot be compared, they differ in {what}{shown}{unpaired}")


def untestable(before: Snapshot, after: Snapshot, estimator: str) -> str:
    """Says in one line why two comparable snapshots allow no paired test; empty if they do."""
    without = [str(s.step) for s in (before, after) if estimator not in s.examples]
    steps = " and ".join(dict.fromkeys(without))
    return f"no paired test of {estimator}: no per-example scores at step {steps}" if without else ""


def paired(before: Snapshot, after: Snapshot, estimator: str) -> np.ndarray:
    """Returns the scores of ``after`` in the order of ``before``'s examples."""
    scores = after.per_example(estimator)
    if before.ids == after.ids or len(set(after.ids)) < len(after.ids):
        return scores
    place = {label: row for row, label in enumerate(after.ids)}
    return scores[[place[label] for label in before.ids]]


def _plain(value: Any) -> Any:
    return list(value) if isinstance(value, tuple) else value
