"""Lines of the manifests of Spoken Facts."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from ...foundation.assets import embedded_split
from ...foundation.json_lines import json_objects
from .alignment_text import alignment_sentences
from .fact import Fact

SPLITS = ("train", "validation", "test")


def fact_row(fact: Fact, split: str, heldout: bool) -> dict[str, Any]:
    """Makes a line of a manifest of a fact."""
    row: dict[str, Any] = {"id": fact.id, "question": fact.question, "answers": list(fact.answers)}
    row |= {"target": fact.target, "source": fact.source, "category": fact.category, "entity": fact.entity}
    row |= {"split": split, "heldout_entity": heldout}
    return row | ({"spoken": fact.spoken} if fact.spoken else {})


def alignment_rows(facts: list[Fact], wordnet: Path, count: int, seed: int) -> Iterator[dict[str, Any]]:
    """Makes sentences for the alignment of an adaptor, as lines of a manifest.

    Args:
        facts: All questions.
        wordnet: Folder of WordNet's data files.
        count: How many sentences.
        seed: Seed of the choice.
    """
    for number, sentence in enumerate(alignment_sentences(facts, wordnet, count, seed)):
        row = {"id": f"align-{number:06d}", "question": sentence.text, "answers": [sentence.text]}
        row |= {"target": sentence.text, "source": "Spoken Facts and WordNet 3.0", "category": sentence.kind}
        yield row | {"split": "train"} | ({"spoken": sentence.spoken} if sentence.spoken else {})


def general_questions() -> list[dict[str, Any]]:
    """Returns the held-out general questions that ship with the package."""
    return [row for _, row in json_objects(embedded_split("spoken-facts/general"))]
