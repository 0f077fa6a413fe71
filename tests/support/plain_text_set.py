"""A set of plain text beside a run, as the evaluation suite writes it."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from textkeep.callbacks.evaluations.plain_text_loss import PlainTextLoss
from textkeep.evaluation import Prediction, store_evaluation


def write_plain_text(run: Path, changes: Sequence[float], step: int = 20, name: str = "plain_text") -> list[int]:
    """Scores passages at step 0 and at a later one.

    Args:
        run: The run directory.
        changes: Of the loss of each passage, nats a token.
        step: The later one.
        name: Of the set.

    Returns:
        The tokens of each passage.
    """
    tokens = [60 + 7 * (i % 9) for i in range(len(changes))]
    for at in (0, step):
        records = [
            Prediction(str(i), "text", loss=3.0 + 0.01 * (i % 5) + (changes[i] if at else 0.0), tokens=tokens[i])
            for i in range(len(changes))
        ]
        folder = run / "evaluation" / name
        store_evaluation(folder, f"val/{name}", at, records, 3.0, PlainTextLoss().summarize)
    return tokens
