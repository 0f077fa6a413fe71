"""Questions on capitals, continents, currencies and languages, out of npm's countries-list."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

from ...foundation.json_lines import json_document
from . import corrections
from .fact import Fact
from .words import capitalised, plain


def with_article(country: str) -> str:
    """Returns the country's name as used inside a sentence (``the Gambia``, ``Ghana``)."""
    return f"the {country}" if country in corrections.TAKES_ARTICLE else country


def _distinct(words: Iterable[str]) -> tuple[str, ...]:
    return tuple(dict.fromkeys(word for word in words if word))


def _load(folder: Path, name: str) -> dict[str, Any]:
    path = folder / f"{name}.min.json"
    if not path.is_file():
        raise FileNotFoundError(f"facts: {path} is missing; run `textkeep assets fact-sources`")
    loaded: dict[str, Any] = json_document(path, "what npm's countries-list ships")
    return loaded


def read_countries(folder: Path) -> list[Fact]:
    """Reads questions on capitals, continents, currencies and languages.

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
    for code in sorted(set(countries) - corrections.LEFT_OUT):
        row = countries[code]
        name = corrections.RENAMED.get(code) or plain(row["name"])
        terms: tuple[str, ...] = (name,)
        if code not in corrections.NO_CAPITAL:
            capital = corrections.CAPITALS.get(code) or _distinct((plain(row["capital"]), row["capital"]))
            terms = (name, capital[0])
            facts += _capital_facts(name, capital, row.get("alias") or [], terms)
        accepted = (continents[row["continent"]], *corrections.OTHER_CONTINENT.get(code, ()))
        where = f"{capitalised(with_article(name))} is in {accepted[0]}."
        question = f"On which continent is {with_article(name)}?"
        facts.append(Fact("continent", name, terms, question, accepted, where, corrections.COUNTRIES))
        facts += _currency_facts(name, row["currency"], currencies, terms)
        facts += _language_facts(name, row["languages"], languages, terms)
    return facts


def _capital_facts(name: str, capital: tuple[str, ...], aliases: Iterable[str], terms: tuple[str, ...]) -> list[Fact]:
    country, city = with_article(name), capital[0]
    question, target = f"What is the capital of {country}?", f"The capital of {country} is {city}."
    facts = [Fact("capital", name, terms, question, capital, target, corrections.COUNTRIES)]
    if city != name and city not in corrections.SHARED_CAPITALS:
        question, target = f"{city} is the capital of which country?", f"{city} is the capital of {country}."
        accepted = _distinct((name, *(alias for alias in aliases if "(" not in alias)))
        facts.append(Fact("capital-of", name, terms, question, accepted, target, corrections.COUNTRIES))
    return facts


def _unit_in_lower_case(currency: str) -> str:
    """Writes ``Algerian Dinar``, a proper name and a unit, with the unit as the common noun that it is."""
    *proper, unit = currency.split()
    return " ".join(
        [*(w.lower() if w in ("Convertible", "New") and w != proper[0] else w for w in proper), unit.lower()]
    )


def _currency_facts(name: str, codes: Iterable[str], currencies: dict[str, Any], terms: tuple[str, ...]) -> list[Fact]:
    names = [plain(currencies[c]["name"]) for c in codes if c in currencies and c not in corrections.NOT_CASH]
    if not names:
        return []
    sentence_case = [_unit_in_lower_case(name) for name in names]
    unit = sentence_case[0].split()[-1]
    accepted = _distinct((sentence_case[0], unit, *sentence_case[1:]))
    country = with_article(name)
    question, target = f"What currency is used in {country}?", f"{capitalised(country)} uses the {sentence_case[0]}."
    return [Fact("currency", name, terms, question, accepted, target, corrections.COUNTRIES)]


def _language_facts(name: str, codes: Iterable[str], languages: dict[str, Any], terms: tuple[str, ...]) -> list[Fact]:
    known = [c for c in codes if c in languages and c not in corrections.NOT_A_LANGUAGE]
    spellings = [corrections.LANGUAGES.get(c) or (plain(languages[c]["name"]),) for c in known]
    if not spellings:
        return []
    country, first = with_article(name), spellings[0][0]
    accepted = _distinct(word for words in spellings for word in words)
    question, target = f"What language is spoken in {country}?", f"People in {country} speak {first}."
    if len(spellings) > 1:
        question, target = f"Name a language that is spoken in {country}.", f"{first} is spoken in {country}."
    return [Fact("language", name, terms, question, accepted, target, corrections.COUNTRIES)]
