"""Reading the facts of Spoken Facts: countries (npm countries-list) and elements (Debian dict-elements)."""

from __future__ import annotations

import gzip
import re
import unicodedata
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ...foundation.json_lines import json_document
from . import tables as tables


@dataclass(frozen=True)
class Fact:
    """One question about one entity.

    Attributes:
        category: Kind of question, for example ``capital``.
        entity: The country or element that it is about.
        terms: Names that belong to the entity (country and capital, or the element).
        question: Text of the question, in ASCII.
        answers: Accepted spellings, best first.
        target: Full-sentence answer to learn.
        source: Package and licence that the fact comes from.
        spoken: What a voice should say, where it differs from ``question``.
    """

    category: str
    entity: str
    terms: tuple[str, ...]
    question: str
    answers: tuple[str, ...]
    target: str
    source: str
    spoken: str | None = None

    @property
    def id(self) -> str:
        """Readable and stable name, such as ``capital-burkina-faso``."""
        return re.sub(r"[^a-z0-9]+", "-", f"{self.category} {self.entity}".lower()).strip("-")


def plain(text: str) -> str:
    """Text in ASCII, as a plain reader would write it (``Bogotá`` becomes ``Bogota``)."""
    text = text.replace("\u02bb", "'").replace("\u2019", "'").replace("&", "and")
    return unicodedata.normalize("NFKD", text).encode("ascii", "ignore").decode().strip()


def spelled(symbol: str) -> str:
    """Letters of a chemical symbol as a voice spells them (``Fe`` becomes ``F E``)."""
    return " ".join(symbol.upper())


def with_article(country: str) -> str:
    """The country's name as it stands inside a sentence (``the Gambia``, ``Ghana``)."""
    return f"the {country}" if country in tables.TAKES_ARTICLE else country


def _capitalised(text: str) -> str:
    return text[:1].upper() + text[1:]


def _distinct(words: Iterable[str]) -> tuple[str, ...]:
    return tuple(dict.fromkeys(word for word in words if word))


def _load(folder: Path, name: str) -> dict[str, Any]:
    path = folder / f"{name}.min.json"
    if not path.is_file():
        raise FileNotFoundError(f"facts: {path} is missing; run `textkeep assets fact-sources`")
    loaded: dict[str, Any] = json_document(path, "what npm's countries-list ships")
    return loaded


def read_countries(folder: Path) -> list[Fact]:
    """Questions on capitals, continents, currencies and languages.

    Args:
        folder: The unpacked ``package`` folder of npm's countries-list.

    Returns:
        Facts in the order of the country codes.

    Raises:
        FileNotFoundError: If one of the package's JSON files is not there.
    """
    countries, continents = _load(folder, "countries"), _load(folder, "continents")
    currencies, languages = _load(folder, "currencies"), _load(folder, "languages")
    facts: list[Fact] = []
    for code in sorted(set(countries) - tables.LEFT_OUT):
        row = countries[code]
        name = tables.RENAMED.get(code) or plain(row["name"])
        terms: tuple[str, ...] = (name,)
        if code not in tables.NO_CAPITAL:
            capital = tables.CAPITALS.get(code) or _distinct((plain(row["capital"]), row["capital"]))
            terms = (name, capital[0])
            facts += _capital_facts(name, capital, row.get("alias") or [], terms)
        accepted = (continents[row["continent"]], *tables.OTHER_CONTINENT.get(code, ()))
        where = f"{_capitalised(with_article(name))} is in {accepted[0]}."
        question = f"On which continent is {with_article(name)}?"
        facts.append(Fact("continent", name, terms, question, accepted, where, tables.COUNTRIES))
        facts += _currency_facts(name, row["currency"], currencies, terms)
        facts += _language_facts(name, row["languages"], languages, terms)
    return facts


def _capital_facts(name: str, capital: tuple[str, ...], aliases: Iterable[str], terms: tuple[str, ...]) -> list[Fact]:
    country, city = with_article(name), capital[0]
    question, target = f"What is the capital of {country}?", f"The capital of {country} is {city}."
    facts = [Fact("capital", name, terms, question, capital, target, tables.COUNTRIES)]
    if city != name and city not in tables.SHARED_CAPITALS:
        question, target = f"{city} is the capital of which country?", f"{city} is the capital of {country}."
        accepted = _distinct((name, *(alias for alias in aliases if "(" not in alias)))
        facts.append(Fact("capital-of", name, terms, question, accepted, target, tables.COUNTRIES))
    return facts


def _unit_in_lower_case(currency: str) -> str:
    """``Algerian Dinar`` is a proper name and a unit; only the unit is a common noun."""
    *proper, unit = currency.split()
    return " ".join(
        [*(w.lower() if w in ("Convertible", "New") and w != proper[0] else w for w in proper), unit.lower()]
    )


def _currency_facts(name: str, codes: Iterable[str], currencies: dict[str, Any], terms: tuple[str, ...]) -> list[Fact]:
    names = [plain(currencies[c]["name"]) for c in codes if c in currencies and c not in tables.NOT_CASH]
    if not names:
        return []
    sentence_case = [_unit_in_lower_case(name) for name in names]
    unit = sentence_case[0].split()[-1]
    accepted = _distinct((sentence_case[0], unit, *sentence_case[1:]))
    country = with_article(name)
    question, target = f"What currency is used in {country}?", f"{_capitalised(country)} uses the {sentence_case[0]}."
    return [Fact("currency", name, terms, question, accepted, target, tables.COUNTRIES)]


def _language_facts(name: str, codes: Iterable[str], languages: dict[str, Any], terms: tuple[str, ...]) -> list[Fact]:
    known = [c for c in codes if c in languages and c not in tables.NOT_A_LANGUAGE]
    spellings = [tables.LANGUAGES.get(c) or (plain(languages[c]["name"]),) for c in known]
    if not spellings:
        return []
    country, first = with_article(name), spellings[0][0]
    accepted = _distinct(word for words in spellings for word in words)
    question, target = f"What language is spoken in {country}?", f"People in {country} speak {first}."
    if len(spellings) > 1:
        question, target = f"Name a language that is spoken in {country}.", f"{first} is spoken in {country}."
    return [Fact("language", name, terms, question, accepted, target, tables.COUNTRIES)]


def read_elements(path: Path) -> list[Fact]:
    """Questions on chemical symbols and years of discovery.

    Args:
        path: ``elements.dict.dz`` (gzip) of Debian's dict-elements.

    Returns:
        Facts in the order of the atomic numbers.

    Raises:
        FileNotFoundError: If the file is not there.
    """
    if not path.is_file():
        raise FileNotFoundError(f"facts: {path} is missing; run `textkeep assets fact-sources`")
    with gzip.open(path, "rt", encoding="latin-1") as file:
        text = file.read()
    # Symbols of three letters are stand-ins for elements that had no name in 2000.
    entry = re.compile(r"\n\n([a-z]+)\nSymbol: ([A-Z][a-z]?)\nAtomic number: \d+\n(.*?)(?=\n\n|\Z)", re.S)
    return [fact for match in entry.finditer(text) for fact in _element_facts(*match.groups())]


def _element_facts(name: str, symbol: str, body: str) -> list[Fact]:
    terms, source = (name,), tables.ELEMENTS
    facts = [
        Fact(
            "symbol",
            name,
            terms,
            f"What is the chemical symbol for {name}?",
            (symbol,),
            f"The chemical symbol for {name} is {symbol}.",
            source,
        ),
        Fact(
            "symbol-of",
            name,
            terms,
            f"Which element has the symbol {symbol}?",
            (name, *tables.OTHER_ELEMENT_NAMES.get(name, ())),
            f"The element with the symbol {symbol} is {name}.",
            source,
            spoken=f"Which element has the symbol {spelled(symbol)}?",
        ),
    ]
    year = re.search(r"(?:[Dd]iscovered|[Ii]solated|[Ii]dentified)[^.]*?\bin\s+(1[5-9]\d\d)", body)
    if year and name not in tables.DOUBTFUL_YEARS:
        question = f"In which year was {name} discovered?"
        target = f"{_capitalised(name)} was discovered in {year.group(1)}."
        facts.append(Fact("discovered", name, terms, question, (year.group(1),), target, source))
    return facts
