"""Perplexity of plain text."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from pathlib import Path

from typing_extensions import override

from ...evaluation import Prediction, RetentionSummary, bootstrap_ratio
from ...evaluation.text_loss import text_losses
from ...foundation.assets import EMBEDDED, embedded_split
from ...foundation.json_lines import json_objects
from ...foundation.text_lines import paragraphs, plain_name
from .evaluation import Evaluation, Measured
from .gathered_scorer import GatheredScorer


class PlainTextLoss(Evaluation):
    """Loss on text without any chat format: what fine-tuning on answers did to the language model itself.

    Args:
        source: A text file (paragraphs between empty lines), a JSONL file with ``text`` (and ``id``) a line, either
            plain or compressed with gzip, or ``spoken-facts/prose``, sentences of WordNet.
        limit: Most texts.
        batch_size: Texts at once.
    """

    def __init__(self, source: str = "spoken-facts/prose", limit: int | None = None, batch_size: int = 16) -> None:
        self.source = source
        self.limit = limit
        self.batch_size = batch_size

    @override
    def measure(self, scorer: GatheredScorer, name: str) -> Measured:
        texts = dict(list(_read(self.source).items())[: self.limit])
        mine = list(texts)[scorer.rank :: scorer.world_size]
        with scorer.reading_text() as llm, scorer.giving_way(llm):
            found = text_losses(llm, scorer.model.tokenizer, [texts[key] for key in mine], self.batch_size)
        losses = scorer.gathered(dict(zip(mine, found, strict=True)))
        return Measured(
            [
                Prediction(key, "text", loss=losses[key][0] / max(losses[key][1], 1), tokens=losses[key][1])
                for key in texts
            ]
        )

    @override
    def summarize(self, records: Sequence[Prediction], baseline: Sequence[Prediction]) -> RetentionSummary:
        summary = RetentionSummary(items=len(records))
        pairs = [(r.loss * r.tokens, r.tokens) for r in records if r.loss is not None]
        loss = bootstrap_ratio([total for total, _ in pairs], [tokens for _, tokens in pairs])
        summary.add("loss", loss)
        summary.values["perplexity"] = math.exp(loss.estimate)
        summary.intervals["perplexity"] = (math.exp(loss.low), math.exp(min(loss.high, 700.0)))
        before = {record.id: record.loss for record in baseline}
        changes = [
            ((record.loss - earlier) * record.tokens, record.tokens)
            for record in records
            if record.loss is not None and (earlier := before.get(record.id)) is not None
        ]
        if changes:
            summary.add("loss_change", bootstrap_ratio([c for c, _ in changes], [tokens for _, tokens in changes]))
        return summary


def _read(source: str) -> dict[str, str]:
    """Reads the texts, by id."""
    path = embedded_split(source) if source.startswith(EMBEDDED) else Path(source)
    if not path.is_file():
        raise FileNotFoundError(f"PlainTextLoss: no file {source} (allowed: a .txt or .jsonl file, spoken-facts/prose)")
    texts: dict[str, str] = {}
    for location, identity, text in _lines(path) if plain_name(path).suffix == ".jsonl" else _passages(path):
        if identity in texts:
            raise ValueError(f"{location}: id {identity!r} was used before; allowed: each id once")
        if text:
            texts[identity] = text
    if not texts:
        raise ValueError(f"PlainTextLoss: {source} holds no text")
    return texts


def _passages(path: Path) -> Iterator[tuple[str, str, str]]:
    """Gives place, number and text of each paragraph."""
    for count, (number, text) in enumerate(paragraphs(path), start=1):
        yield f"{path}:{number}", str(count), text.strip()


def _lines(path: Path) -> Iterator[tuple[str, str, str]]:
    """Gives place, id and text of each line."""
    for number, row in json_objects(path):
        location, identity, text = f"{path}:{number}", row.get("id"), row.get("text")
        if not isinstance(text, str):
            raise ValueError(f'{location}: "text" is {text!r}; allowed: {{"id": …, "text": …}}')
        yield location, str(number if identity is None else identity), text.strip()
