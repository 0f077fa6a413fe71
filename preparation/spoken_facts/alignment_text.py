"""Sentences that teach an adaptor to hear words: varied, short, and none of them a test question."""

from __future__ import annotations

import random
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

from . import alignment_templates as templates
from .countries import with_article
from .fact import Fact
from .wordnet_text import read_common_words, read_sentences
from .words import spelled, words_of

COMMON_WORDS = 12000
TIMES_EACH_NAME = 45
TIMES_EACH_SYMBOL = 40
SHARE_OF_WORD_LISTS = 0.1
SHARE_OF_LETTERS = 0.02


@dataclass(frozen=True)
class Sentence:
    """A sentence to speak.

    Attributes:
        text: What the model should have heard.
        kind: Where it comes from: ``carrier``, ``symbol``, ``letters``, ``words``, ``example`` or ``definition``.
        spoken: What the voice says, where it differs from ``text``.
    """

    text: str
    kind: str
    spoken: str | None = None


def year_in_words(year: str) -> str:
    """Spells a year as it is read out (``1807`` becomes ``eighteen oh seven``).

    Args:
        year: Four digits, 1100 to 1999.
    """

    def pair(number: int) -> str:
        if number < 20:
            return templates.UP_TO_NINETEEN[number]
        ones = f" {templates.UP_TO_NINETEEN[number % 10]}" if number % 10 else ""
        return templates.TENS[number // 10] + ones

    century, rest = int(year[:2]), int(year[2:])
    if rest == 0:
        return f"{pair(century)} hundred"
    return f"{pair(century)} {'oh ' if rest < 10 else ''}{pair(rest)}"


def names_by_kind(facts: Sequence[Fact]) -> dict[str, list[str]]:
    """Sorts every entity and every first answer by the kind of sentence that it fits into."""
    names: dict[str, dict[str, None]] = {kind: {} for kind in templates.CARRIERS}
    for fact in facts:
        if fact.category in templates.KIND_OF_ANSWER:
            answer = fact.answers[0]
            kind = templates.KIND_OF_ANSWER[fact.category]
            names[kind].setdefault(year_in_words(answer) if kind == "year" else answer)
        if fact.category in templates.KIND_OF_ENTITY:
            names[templates.KIND_OF_ENTITY[fact.category]].setdefault(with_article(fact.entity))
    return {kind: list(found) for kind, found in names.items()}


def _carriers(facts: Sequence[Fact], rng: random.Random) -> Iterator[Sentence]:
    names = names_by_kind(facts)
    for _ in range(TIMES_EACH_NAME):
        for kind, pool in names.items():
            for name in rng.sample(pool, len(pool)):
                template = rng.choice(templates.CARRIERS[kind])
                others = {f"other_{k}": rng.choice([n for n in p if n != name]) for k, p in names.items()}
                text = template.format(name=name, word=rng.choice(templates.TIMES), **others)
                yield Sentence(_sentence(text), "carrier")


def _sentence(text: str) -> str:
    return text[:1].upper() + text[1:]


def _symbols(facts: Sequence[Fact], rng: random.Random) -> Iterator[Sentence]:
    symbols = [fact.answers[0] for fact in facts if fact.category == "symbol"]
    for _ in range(TIMES_EACH_SYMBOL):
        for symbol in rng.sample(symbols, len(symbols)):
            other = rng.choice([s for s in symbols if s != symbol])
            template = rng.choice(templates.SYMBOLS)
            yield Sentence(
                template.format(symbol=symbol, other=other),
                "symbol",
                template.format(symbol=spelled(symbol), other=spelled(other)),
            )


def _letters(rng: random.Random) -> Iterator[Sentence]:
    while True:
        letters = rng.sample("ABCDEFGHIJKLMNOPQRSTUVWXYZ", rng.randint(2, 4))
        yield Sentence(rng.choice(templates.LETTERS).format(letters=" ".join(letters)), "letters")


def _word_lists(words: Sequence[str], rng: random.Random) -> Iterator[Sentence]:
    while True:
        # Square of a uniform number: common words come up more often, as they do in speech.
        picked = [words[int(rng.random() ** 2 * len(words))] for _ in range(rng.randint(3, 6))]
        yield Sentence(_sentence(", ".join(picked)) + ".", "words")


def _text_of_wordnet(folder: Path, rng: random.Random) -> Iterator[Sentence]:
    examples, definitions = read_sentences(folder)
    # Examples are whole sentences and phrases as people say them: definitions only fill up.
    for kind, texts in (("example", examples), ("definition", definitions)):
        rng.shuffle(texts)
        yield from (Sentence(text, kind) for text in texts)


def _distinct(sentences: Iterable[Sentence], wanted: int, seen: set[str], attempts: int = 20) -> list[Sentence]:
    """Takes the first ``wanted`` sentences whose words were not seen before (a generator may run dry)."""
    kept: list[Sentence] = []
    for sentence in islice(sentences, attempts * wanted):
        if len(kept) >= wanted:
            break
        key = " ".join(words_of(sentence.text))
        if key not in seen and 2 <= len(sentence.text.split()) <= 14:
            seen.add(key)
            kept.append(sentence)
    return kept


def alignment_sentences(facts: Sequence[Fact], wordnet: Path, count: int, seed: int = 0) -> list[Sentence]:
    """Makes sentences to align an adaptor on.

    Every entity and answer of the facts occurs in many carrier sentences, but no question of the facts does.

    Args:
        facts: All questions of Spoken Facts.
        wordnet: Folder of WordNet's data files.
        count: How many sentences; fewer if the sources run dry.
        seed: Seed of the choice.

    Returns:
        Distinct sentences in random order.

    Raises:
        ValueError: If ``count`` is too small to hold every name and symbol.
    """
    rng = random.Random(seed)
    seen = {" ".join(words_of(text)) for fact in facts for text in (fact.question, fact.spoken or "")}
    chosen = _distinct(_carriers(facts, rng), 10**6, seen)
    chosen += _distinct(_symbols(facts, rng), 10**6, seen)
    if count < len(chosen):
        raise ValueError(
            f"facts: --alignment must be at least {len(chosen)} (every name in every sentence), got {count}"
        )
    words = read_common_words(wordnet, COMMON_WORDS)
    chosen += _distinct(_letters(rng), min(int(count * SHARE_OF_LETTERS), count - len(chosen)), seen)
    chosen += _distinct(_word_lists(words, rng), min(int(count * SHARE_OF_WORD_LISTS), count - len(chosen)), seen)
    chosen += _distinct(_text_of_wordnet(wordnet, rng), count - len(chosen), seen)
    rng.shuffle(chosen)
    return chosen
