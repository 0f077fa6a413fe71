"""Forgetting and misalignment of paired items: how far the model's predictions are from the untouched LLM's."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

from ..foundation.files import write_json_lines
from ..foundation.run_names import FORGETTING, MISALIGNMENT, records_name
from .predictions import read_lines
from .retention import RetentionSummary, put_summary
from .statistics import NOT_NEGATIVE, bootstrap_ratio


@dataclass(frozen=True)
class ItemDivergence:
    """Divergences of one item, summed over the tokens of its target, nats.

    Attributes:
        id: The item.
        tokens: Tokens of the target.
        forgetting: KL(base LLM on text || model on text).
        misalignment: KL(model on text || model on speech); None if the item was not spoken.
    """

    id: str
    tokens: int
    forgetting: float
    misalignment: float | None = None


def summarize_divergences(records: Sequence[ItemDivergence]) -> RetentionSummary:
    """Returns SALAD's F and M (arXiv 2510.13632), nats per answer token, with bootstrap intervals over items."""
    summary = RetentionSummary(items=len(records))
    if records:
        tokens = [record.tokens for record in records]
        forgetting = [record.forgetting for record in records]
        summary.add(FORGETTING, bootstrap_ratio(forgetting, tokens, bounds=NOT_NEGATIVE))
    spoken = [(record.misalignment, record.tokens) for record in records if record.misalignment is not None]
    if spoken:
        sums, tokens = [sums for sums, _ in spoken], [tokens for _, tokens in spoken]
        summary.add(MISALIGNMENT, bootstrap_ratio(sums, tokens, bounds=NOT_NEGATIVE))
    return summary


def store_divergences(
    folder: Path | None, step: int, records: Sequence[ItemDivergence], seconds: float, prefix: str = ""
) -> RetentionSummary:
    """Writes the items to ``step=000120.jsonl`` and a line to ``summary.jsonl``, atomically.

    Args:
        folder: Where to write; None writes nothing.
        step: Optimizer steps taken.
        records: All items.
        seconds: Time that the measurement took.
        prefix: Prefix of the metric keys in the summary.
    """
    summary = summarize_divergences(records)
    if folder is not None:
        write_json_lines((asdict(record) for record in records), folder / records_name(step))
        put_summary(folder, step, summary, seconds, prefix)
    return summary


def read_divergences(path: str | Path) -> list[ItemDivergence]:
    """Reads the items of a step; keys it does not know are ignored.

    Raises:
        FileNotFoundError: If the file does not exist.
        ValueError: If a line is not such a record, with file and line.
    """
    names = {field.name for field in fields(ItemDivergence)}
    records = []
    for number, row in read_lines(path):
        known: dict[str, Any] = {key: value for key, value in row.items() if key in names}
        if missing := {"id", "tokens", "forgetting"} - known.keys():
            raise ValueError(f"{path}:{number}: a divergence needs {', '.join(sorted(missing))}")
        records.append(ItemDivergence(**known))
    return records
