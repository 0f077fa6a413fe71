"""Perplexity of plain text."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from typing_extensions import override

from ...evaluation import NOT_NEGATIVE, Interval, Prediction, RetentionSummary, bootstrap_ratio
from ...evaluation.text_loss import text_losses
from ...foundation.assets import embedded_split, is_embedded
from ...foundation.json_lines import json_objects
from ...foundation.text_lines import paragraphs, plain_name
from .evaluation import Evaluation, Measured, limited_ids
from .gathered_scorer import GatheredScorer


class Text(NamedTuple):
    """A text to score, with its kind ("" where it is of none)."""

    text: str
    kind: str = ""


class PlainTextLoss(Evaluation):
    """Loss on text without a chat format: what fine-tuning on answers did to the language model itself.

    Where texts name their ``kind``, loss and change are also given of each kind (``loss_fiction``).

    Args:
        source: ``spoken-facts/prose``, sentences of WordNet; ``plain-text/evaluation``, passages of five kinds; a text
            file (paragraphs between empty lines), or a JSONL file with ``text`` (and ``id``, ``kind``) a line, either
            plain or compressed with gzip.
        limit: Most texts; a choice by hash, so that no kind is favoured.
        batch_size: Texts at once.
    """

    def __init__(self, source: str = "spoken-facts/prose", limit: int | None = None, batch_size: int = 16) -> None:
        self.source = source
        self.limit = limit
        self.batch_size = batch_size

    @override
    def measure(self, scorer: GatheredScorer, name: str) -> Measured:
        read = _read(self.source)
        kept = limited_ids(list(read), self.limit)
        texts = {key: text for key, text in read.items() if key in kept}
        mine = list(texts)[scorer.rank :: scorer.world_size]
        written = [texts[key].text for key in mine]

        def score() -> list[list[float]]:
            return [list(pair) for pair in text_losses(llm, scorer.model.tokenizer, written, self.batch_size)]

        with scorer.reading_text() as llm, scorer.giving_way(llm):
            found = scorer.recall(["plain text", written, self.batch_size], score)
        losses = scorer.gathered(dict(zip(mine, found, strict=True)))
        return Measured(
            [
                Prediction(
                    key, "text", loss=losses[key][0] / max(losses[key][1], 1), tokens=int(losses[key][1]), category=kind
                )
                for key, (_, kind) in texts.items()
            ]
        )

    @override
    def summarize(self, records: Sequence[Prediction], baseline: Sequence[Prediction]) -> RetentionSummary:
        summary = RetentionSummary(items=len(records))
        before = {record.id: record.loss for record in baseline}
        loss = _add_losses(summary, records, before)
        summary.add("perplexity", Interval(*(_perplexity(part) for part in (loss.estimate, loss.low, loss.high))))
        for kind in sorted({record.category for record in records if record.category}):
            _add_losses(summary, [record for record in records if record.category == kind], before, f"_{kind}")
        return summary


def _perplexity(loss: float) -> float:
    """Returns e to the loss, at most e^700: larger values overflow, and a diverged run must still report figures."""
    return math.exp(min(loss, 700.0))


def _add_losses(
    summary: RetentionSummary, records: Sequence[Prediction], before: Mapping[str, float | None], suffix: str = ""
) -> Interval:
    """Adds the loss, nats per token, and its change where one before is known; gives the loss."""
    pairs = [(r.loss * r.tokens, r.tokens) for r in records if r.loss is not None]
    loss = bootstrap_ratio([total for total, _ in pairs], [tokens for _, tokens in pairs], bounds=NOT_NEGATIVE)
    summary.add(f"loss{suffix}", loss)
    changes = [
        ((record.loss - earlier) * record.tokens, record.tokens)
        for record in records
        if record.loss is not None and (earlier := before.get(record.id)) is not None
    ]
    if changes:
        summary.add(f"loss_change{suffix}", bootstrap_ratio([c for c, _ in changes], [tokens for _, tokens in changes]))
    return loss


def _read(source: str) -> dict[str, Text]:
    """Reads the texts, by id."""
    path = embedded_split(source) if is_embedded(source) else Path(source)
    if not path.is_file():
        allowed = "a .txt or .jsonl file, spoken-facts/prose, plain-text/evaluation"
        raise FileNotFoundError(f"PlainTextLoss: no file {source} (allowed: {allowed})")
    texts: dict[str, Text] = {}
    for location, identity, found in _lines(path) if plain_name(path).suffix == ".jsonl" else _passages(path):
        if identity in texts:
            raise ValueError(f"{location}: id {identity!r} was used before; allowed: each id once")
        if found.text:
            texts[identity] = found
    if not texts:
        raise ValueError(f"PlainTextLoss: {source} holds no text")
    return texts


def _passages(path: Path) -> Iterator[tuple[str, str, Text]]:
    """Yields place, number and text of each paragraph."""
    for count, (number, text) in enumerate(paragraphs(path), start=1):
        yield f"{path}:{number}", str(count), Text(text.strip())


def _lines(path: Path) -> Iterator[tuple[str, str, Text]]:
    """Yields place, id and text of each line."""
    for number, row in json_objects(path):
        location, identity, text = f"{path}:{number}", row.get("id"), row.get("text")
        if not isinstance(text, str):
            raise ValueError(f'{location}: "text" is {text!r}; allowed: {{"id": …, "text": …}}')
        kind = row.get("kind")
        found = Text(text.strip(), kind if isinstance(kind, str) else "")
        yield location, str(number if identity is None else identity), found
