"""Plain sentences that no question and no training text of this package holds: example sentences of WordNet."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from .draws import stable_hash
from .wordnet_text import read_sentences

WORDS = (8, 14)
"""A shorter sentence says little; a longer one is none that a voice would say, and not kept by the reader."""


def prose_rows(wordnet: Path, count: int, seed: int) -> list[dict[str, Any]]:
    """Makes rows ``{"id", "text", "source"}`` of sentences drawn by hash.

    Args:
        wordnet: Folder of WordNet's data files.
        count: How many.
        seed: Seed of the draw.

    Raises:
        FileNotFoundError: If the data files are not there.
        ValueError: If there are too few sentences.
    """
    examples, _ = read_sentences(wordnet)
    fitting = [sentence for sentence in examples if WORDS[0] <= len(sentence.split()) <= WORDS[1]]
    if not 0 < count <= len(fitting):
        raise ValueError(f"facts: --prose {count}: allowed: 1 to {len(fitting)}, as many as WordNet has")
    drawn = sorted(fitting, key=lambda sentence: stable_hash(f"prose {seed} {sentence}"))[:count]
    source = "WordNet 3.0"
    return [{"id": f"prose-{number:04d}", "text": text, "source": source} for number, text in enumerate(drawn)]
