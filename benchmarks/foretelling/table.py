"""Which score to trust: rank correlation with the removals, and the maximum that their noise allows."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from textkeep.importance.metrics import spearman

from .measuring import read
from .scores import scored

LEVELS = ("layer", "matrix", "head")
DRAWS = 1000
FEW = 5  # scored examples
SECOND, SIGNED, PLAIN = (
    "-E s + E T ŝ² / 2, the same, labels of the model",
    "`signed_taylor`, E\\|s\\|",
    "`taylor`, E Σ\\|w g\\|",
)
ABLATION = "`ablation`"
DIFFERENCES = ((SECOND, SIGNED), (SECOND, PLAIN), (ABLATION, SECOND), (ABLATION, SIGNED))


def table(files: Sequence[Path]) -> str:
    """Builds a table for each file: a row per score, a column per level."""
    return "\n\n".join(_table(path) for path in files)


def _table(path: Path) -> str:
    rows = {row["name"]: row for row in read(path)}
    setup = rows["setup"]
    columns = {level: column(rows, level) for level in LEVELS}
    columns = {level: found for level, found in columns.items() if found}
    names = list(dict.fromkeys(name for found in columns.values() for name in found))
    lines = [
        f"{setup['model']}, {setup['text']}: {setup['scored']} of {setup['examples']} examples scored, "
        f"{setup['tokens']} tokens, loss {np.mean(setup['losses']):.3f}",
        "",
        "| score | " + " | ".join(columns) + " |",
        "| --- " * (1 + len(columns)) + "|",
    ]
    lines += [f"| {name} | " + " | ".join(found.get(name, "") for found in columns.values()) + " |" for name in names]
    return "\n".join(lines)


def column(rows: dict[str, dict[str, Any]], level: str) -> dict[str, str]:
    """Returns each score's rank correlation with the removals of a level, and the maximum possible, as text."""
    count, pieces = rows["setup"]["scored"], [row for row in rows.values() if row.get("level") == level]
    if len(pieces) < 8:
        return {}
    changes = np.array([row["changes"] for row in pieces])
    target = changes[:, count:].mean(axis=1)
    per_piece = [scored(rows, row) for row in pieces]
    owner = np.array([i for i, scores in enumerate(per_piece) for _ in scores])
    flat = [scores for of_piece in per_piece for scores in of_piece]
    found = {"pieces (matrices that do the same when removed are one)": f"{len(pieces)}" + _of(flat, pieces)}
    half = reliability(changes[:, count:])
    whole = 2 * half / (1 + half)
    found["removals between halves of the evaluated examples"] = f"{half:.2f}"
    found["the most that is possible"] = f"{np.sqrt(max(whole, 0)):.2f}"
    size = float(np.median(np.abs(target)))
    found["removals that lower the loss; median size, nats"] = f"{(target < 0).mean():.0%}; {size:.3f}"
    for name in flat[0] if flat else ():
        found[name] = correlation(np.array([scores[name] for scores in flat]), target, owner)
    single = np.arange(len(pieces))
    found[f"removal on {FEW} scored examples"] = correlation(changes[:, :FEW].mean(axis=1), target, single)
    found[f"removal on all {count} scored examples (`ablation`)"] = correlation(
        changes[:, :count].mean(axis=1), target, single
    )
    values = {name: np.array([scores.get(name, np.nan) for scores in flat]) for name in (SECOND, SIGNED, PLAIN)}
    values[ABLATION] = changes[:, :count].mean(axis=1)[owner]
    for one, other in DIFFERENCES:
        if not np.isnan(values[one] + values[other]).any():
            found[f"difference: {one} over {other}"] = correlation(values[one], target, owner, than=values[other])
    return found


def correlation(
    scores: np.ndarray, target: np.ndarray, owner: np.ndarray, seed: int = 0, than: np.ndarray | None = None
) -> str:
    """Rank correlation with its 90 % interval, drawing pieces with replacement; or its excess over another score's.

    Args:
        scores: Of each matrix, head or layer.
        target: Change of the loss without each piece.
        owner: Index of the piece that each score is about.
        seed: Of the draws.
        than: Another score, whose correlation is subtracted.
    """
    generator = np.random.default_rng(seed)

    def figure(chosen: np.ndarray) -> float:
        against = target[owner[chosen]]
        less = 0.0 if than is None else float(spearman(than[chosen], against))
        return float(spearman(scores[chosen], against)) - less

    places = [np.flatnonzero(owner == piece) for piece in range(len(target))]
    values = []
    for _ in range(DRAWS):
        drawn = np.concatenate([places[piece] for piece in generator.integers(len(target), size=len(target))])
        values.append(figure(drawn))
    low, high = np.percentile(values, [5.0, 95.0])
    return f"{figure(np.arange(len(scores))):.2f} [{low:.2f}, {high:.2f}]"


def reliability(changes: np.ndarray, splits: int = 200, seed: int = 0) -> float:
    """Rank correlation of the mean changes (P, N) between random halves of the N examples, the median."""
    generator, found = np.random.default_rng(seed), []
    half = changes.shape[1] // 2
    for _ in range(splits):
        order = generator.permutation(changes.shape[1])
        sides = [changes[:, part].mean(axis=1) for part in (order[:half], order[half : 2 * half])]
        found.append(float(spearman(*sides)))
    return float(np.median(found))


def _of(flat: Sequence[Any], pieces: Sequence[Any]) -> str:
    return f" ({len(flat)} matrices)" if len(flat) > len(pieces) else ""
