"""Dividing facts into training, validation and test by hash, with whole entities held out for the test."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import dataclass

from .draws import stable_hash
from .fact import Fact
from .words import words_of


@dataclass(frozen=True)
class SplitSizes:
    """How many questions to keep from training.

    Attributes:
        validation: Unseen questions about entities that training has in other questions.
        test_seen: The same, for the test.
        test_heldout: Least number of test questions whose entities occur in no other split.
    """

    validation: int = 100
    test_seen: int = 110
    test_heldout: int = 110


def entity_groups(facts: Sequence[Fact]) -> dict[str, str]:
    """Groups entities that must stay together: one's name occurs in a question or answer about another.

    "Guinea" occurs in "Papua New Guinea", "New Zealand" in the answer on another country's currency.

    Returns:
        The representative of every entity's group.
    """
    parent = {fact.entity: fact.entity for fact in facts}

    def root(entity: str) -> str:
        while parent[entity] != entity:
            entity = parent[entity]
        return entity

    terms = sorted({(" ".join(words_of(term)), fact.entity) for fact in facts for term in fact.terms})
    for fact in facts:
        text = f" {' '.join(words_of(f'{fact.question} {fact.target}'))} "
        for term, owner in terms:
            if owner != fact.entity and f" {term} " in text:
                first, second = sorted((root(owner), root(fact.entity)))
                parent[second] = first
    return {entity: root(entity) for entity in parent}


def split_facts(facts: Sequence[Fact], sizes: SplitSizes | None = None) -> dict[str, list[tuple[Fact, bool]]]:
    """Assigns every fact to a split.

    Args:
        facts: Questions with distinct ids.
        sizes: How many to keep from training.

    Returns:
        For ``train``, ``validation`` and ``test`` the pairs (fact, whether its entity is held out), by id.

    Raises:
        ValueError: If two facts share an id or a question, or there are too few facts.
    """
    sizes = sizes or SplitSizes()
    for what in ("id", "question"):
        most, count = Counter(getattr(fact, what) for fact in facts).most_common(1)[0]
        if count > 1:
            raise ValueError(f"facts: {count} facts share the {what} {most!r}; each must have its own")
    groups = entity_groups(facts)
    members: dict[str, list[Fact]] = defaultdict(list)
    for fact in facts:
        members[groups[fact.entity]].append(fact)
    heldout: list[Fact] = []
    for group in sorted(members, key=lambda g: stable_hash(f"heldout {g}")):
        if len(heldout) < sizes.test_heldout:
            heldout += members[group]
    names = {fact.entity for fact in heldout}
    rest = sorted((f for f in facts if f.entity not in names), key=lambda f: stable_hash(f"split {f.id}"))
    unseen = _without_emptying(rest, sizes.validation + sizes.test_seen)
    taken = {fact.id for fact in unseen}
    splits = {
        "train": [(fact, False) for fact in rest if fact.id not in taken],
        "validation": [(fact, False) for fact in unseen[: sizes.validation]],
        "test": [(fact, False) for fact in unseen[sizes.validation :]] + [(fact, True) for fact in heldout],
    }
    return {name: sorted(rows, key=lambda row: row[0].id) for name, rows in splits.items()}


def _without_emptying(facts: Sequence[Fact], wanted: int) -> list[Fact]:
    """Takes the first ``wanted`` facts that leave their entity more questions in training than outside it."""
    left, gone = Counter(fact.entity for fact in facts), Counter[str]()
    chosen: list[Fact] = []
    for fact in facts:
        if len(chosen) < wanted and left[fact.entity] - 1 > gone[fact.entity]:
            left[fact.entity] -= 1
            gone[fact.entity] += 1
            chosen.append(fact)
    if len(chosen) < wanted:
        raise ValueError(f"facts: {wanted} unseen questions were asked for, the sources have only {len(chosen)}")
    return chosen
