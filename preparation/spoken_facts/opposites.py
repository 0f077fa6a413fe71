"""Questions on opposites, out of WordNet's antonyms: single words that training on Spoken Facts never asks for."""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from .draws import stable_hash
from .fact import Fact
from .splits import entity_groups
from .wordnet_text import read_common_words

SOURCE = "WordNet 3.0"
BOUNDS = {"train": 0.78, "validation": 0.86, "test": 1.0}
"""Where each split ends, roughly: words that belong together stay together."""

_PARTS_OF_SPEECH = ("adj", "noun", "verb", "adv")
_WORD = re.compile(r"[a-z]{3,12}")
_ANTONYM = "!"
_IN_EVERY_QUESTION = {"opposite", "the", "what"}


def read_antonyms(folder: Path) -> dict[str, list[str]]:
    """Reads every word with its antonyms, both in lower case and in the order of WordNet's files.

    The format is that of wndb(5WN): a synset's words, then its pointers; a pointer between two words names their
    numbers in their synsets as two hexadecimal digits each.

    Args:
        folder: WordNet's folder of ``data.*`` files.

    Raises:
        FileNotFoundError: If a data file is not there.
    """
    found: dict[str, dict[str, None]] = defaultdict(dict)
    for part in _PARTS_OF_SPEECH:
        path = folder / f"data.{part}"
        if not path.is_file():
            raise FileNotFoundError(f"facts: {path} is missing; run `textkeep assets wordnet`")
        lines = path.read_text(encoding="latin-1").split("\n")
        synsets = {line[:8]: line.partition("|")[0].split() for line in lines if line and not line.startswith("  ")}
        for pair in _pairs(synsets):
            if all(_WORD.fullmatch(word) for word in pair) and not _IN_EVERY_QUESTION.intersection(pair):
                found[pair[0]].setdefault(pair[1])
    return {word: list(opposites) for word, opposites in found.items()}


def _pairs(synsets: Mapping[str, list[str]]) -> Iterator[tuple[str, str]]:
    for fields in synsets.values():
        pointers = 4 + 2 * int(fields[3], 16)
        for start in range(pointers + 1, pointers + 1 + 4 * int(fields[pointers]), 4):
            symbol, offset, _, ends = fields[start : start + 4]
            if symbol == _ANTONYM:  # always within one part of speech
                yield _word(fields, int(ends[:2], 16)), _word(synsets[offset], int(ends[2:], 16))


def _word(fields: list[str], number: int) -> str:
    """Returns the n-th word of a synset, without the mark of an adjective's position, as in ``galore(ip)``."""
    return re.sub(r"\(.*\)", "", fields[2 + 2 * number]).lower()


def opposite_facts(wordnet: Path, count: int) -> list[Fact]:
    """Makes the ``count`` questions with the commonest words.

    Args:
        wordnet: Folder of WordNet's files.
        count: How many.

    Returns:
        The commonest first.

    Raises:
        FileNotFoundError: If WordNet's files are not there.
        ValueError: If there are fewer.
    """
    antonyms = read_antonyms(wordnet)
    rank = {word: place for place, word in enumerate(read_common_words(wordnet, 10**6))}
    last = len(rank)
    asked = sorted(
        (word for word, opposites in antonyms.items() if word in rank and any(other in rank for other in opposites)),
        key=lambda word: rank[word],
    )
    if not 0 < count <= len(asked):
        raise ValueError(f"facts: --opposites {count}: allowed: 1 to {len(asked)}, as many as WordNet has")
    return [_fact(word, sorted(antonyms[word], key=lambda other: rank.get(other, last))) for word in asked[:count]]


def _fact(word: str, opposites: list[str]) -> Fact:
    question, target = f"What is the opposite of {word}?", f"The opposite of {word} is {opposites[0]}."
    return Fact("opposite", word, (word, opposites[0]), question, tuple(opposites), target, SOURCE)


def split_opposites(facts: Sequence[Fact]) -> dict[str, list[tuple[Fact, bool]]]:
    """Divides facts by hash: no word of a test question or its answer occurs in a training question or answer.

    Returns:
        For ``train``, ``validation`` and ``test`` the pairs (fact, whether its words are held out), by id.
    """
    groups = entity_groups(facts)
    sizes = Counter(groups.values())
    splits: dict[str, str] = {}
    filled = 0
    for name in sorted(sizes, key=lambda name: stable_hash(f"opposites {name}")):
        splits[name] = next((split for split, bound in BOUNDS.items() if filled < bound * len(facts)), "test")
        filled += sizes[name]
    divided: dict[str, list[tuple[Fact, bool]]] = {split: [] for split in BOUNDS}
    for fact in sorted(facts, key=lambda fact: fact.id):
        split = splits[groups[fact.entity]]
        divided[split].append((fact, split != "train"))
    return divided
