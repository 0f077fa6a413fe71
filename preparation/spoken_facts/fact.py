"""What a question of Spoken Facts is made of."""

from __future__ import annotations

import re
from dataclasses import dataclass


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
