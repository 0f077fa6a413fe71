"""All facts of Spoken Facts, from where they come."""

from __future__ import annotations

from pathlib import Path

from .countries import read_countries
from .elements import read_elements
from .fact import Fact


def read_facts(sources: Path) -> list[Fact]:
    """Reads all questions from the folder that ``textkeep assets fact-sources`` makes."""
    return read_countries(sources / "countries-list") + read_elements(sources / "elements.dict.dz")
