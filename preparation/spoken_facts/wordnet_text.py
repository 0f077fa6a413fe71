"""Short sentences, definitions and common words out of WordNet's data files."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

from .words import plain

PARTS_OF_SPEECH = ("noun", "verb", "adj", "adv")
SPEAKABLE = re.compile(r"[A-Za-z][A-Za-z ,'?!.-]*")


def speakable(text: str, least: int = 2, most: int = 14) -> str | None:
    """Returns a text as a voice would say it, or None if it holds digits, brackets or too many words.

    Args:
        text: A sentence or phrase.
        least: Fewest words.
        most: Most words.

    Returns:
        The text with a capital letter and a full stop.
    """
    text = re.sub(r"\s+", " ", re.sub(r"\([^)]*\)", " ", plain(text))).strip(" ;:,\"'`-")
    text = re.sub(r" ([,.?!])", r"\1", text.replace("--", ", "))
    if not SPEAKABLE.fullmatch(text) or re.search(r"[,.?!'-]{2}", text) or not least <= len(text.split()) <= most:
        return None
    return text[:1].upper() + text[1:] + ("" if text[-1] in ".?!" else ".")


def _glosses(folder: Path) -> Iterator[str]:
    for part in PARTS_OF_SPEECH:
        path = folder / f"data.{part}"
        if not path.is_file():
            raise FileNotFoundError(f"facts: {path} is missing; run `textkeep assets wordnet`")
        with path.open(encoding="latin-1") as lines:
            # The licence at the top of every file is indented.
            yield from (line.partition("|")[2] for line in lines if not line.startswith("  "))


def read_sentences(folder: Path) -> tuple[list[str], list[str]]:
    """Reads example sentences and short definitions.

    Args:
        folder: WordNet's folder of ``data.*`` files.

    Returns:
        Examples and definitions, each without repetition, in the order of the files.

    Raises:
        FileNotFoundError: If a data file is not there.
    """
    examples: dict[str, None] = {}
    definitions: dict[str, None] = {}
    for gloss in _glosses(folder):
        for quoted in re.findall(r'"([^"]*)"', gloss):
            if sentence := speakable(quoted, least=3):
                examples.setdefault(sentence)
        for part in re.sub(r'"[^"]*"', "", gloss).split(";"):
            if sentence := speakable(part, least=3):
                definitions.setdefault(sentence)
    return list(examples), list(definitions)


def read_common_words(folder: Path, limit: int) -> list[str]:
    """Reads the words that WordNet's tagged texts use most, most frequent first.

    Args:
        folder: WordNet's folder, with ``cntlist.rev``.
        limit: How many words; those that the texts never use fill up the list, alphabetically.

    Raises:
        FileNotFoundError: If the word counts are not there.
    """
    path = folder / "cntlist.rev"
    if not path.is_file():
        raise FileNotFoundError(f"facts: {path} is missing; run `textkeep assets wordnet`")
    counts: Counter[str] = Counter()
    with path.open(encoding="latin-1") as lines:
        for number, line in enumerate(lines, start=1):
            fields = line.split()
            if len(fields) != 3 or not fields[2].isdecimal():
                raise ValueError(f"{path}:{number}: {line.strip()[:40]!r}; allowed: a sense, its number and its count")
            key, _, count = fields
            word = key.split("%")[0]
            if re.fullmatch(r"[a-z]{2,12}", word):
                counts[word] += int(count)
    return sorted(counts, key=lambda word: (-counts[word], word))[:limit]
