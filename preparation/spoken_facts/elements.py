"""Questions on chemical symbols and years of discovery, out of Debian's dict-elements."""

from __future__ import annotations

import gzip
import re
from pathlib import Path

from . import corrections
from .fact import Fact
from .words import capitalised, spelled


def read_elements(path: Path) -> list[Fact]:
    """Reads questions on chemical symbols and years of discovery.

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
    terms, source = (name,), corrections.ELEMENTS
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
            (name, *corrections.OTHER_ELEMENT_NAMES.get(name, ())),
            f"The element with the symbol {symbol} is {name}.",
            source,
            spoken=f"Which element has the symbol {spelled(symbol)}?",
        ),
    ]
    year = re.search(r"(?:[Dd]iscovered|[Ii]solated|[Ii]dentified)[^.]*?\bin\s+(1[5-9]\d\d)", body)
    if year and name not in corrections.DOUBTFUL_YEARS:
        question = f"In which year was {name} discovered?"
        target = f"{capitalised(name)} was discovered in {year.group(1)}."
        facts.append(Fact("discovered", name, terms, question, (year.group(1),), target, source))
    return facts
