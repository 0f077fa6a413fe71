"""Examples to score, from the caller or from a source."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from ..datamodules import Example, Probe, Source
from ..datamodules.sources.bad_examples import BadExamples
from ..datamodules.sources.example import Modality
from ..datamodules.sources.named import SourceName, read_sources
from ..foundation.errors import UserError


def read_examples(
    examples: Sequence[Example] | SourceName,
    modality: Modality = "text",
    count: int | None = None,
    *,
    seed: int = 0,
    skip: int = 0,
) -> list[Example]:
    """Returns the examples that have a modality.

    Args:
        examples: Examples, or where they are: a manifest, ``spoken-facts/SPLIT``, a .txt file, or a source.
        modality: ``text`` or ``speech``.
        count: Only this many, chosen by hash like the probes of a run (``data.probes``); None keeps all in order.
        seed: Of the choice.
        skip: Skips this many of the choice, to get others than in a choice of that size.

    Raises:
        UserError: If no example is left, or a given one lacks the modality.
        BadExampleError: If a source contains one that cannot be used.
    """
    found: list[Example]
    if given := not isinstance(examples, str | Path | Source):
        name, found = "the examples", list(examples)
    else:
        name, found = str(getattr(examples, "name", examples)), read_sources(examples, BadExamples("raise"))
    having = [example for example in found if example.has(modality)]
    if given and len(having) < len(found):
        lacking = next(example.id for example in found if not example.has(modality))
        raise UserError(f"example {lacking!r} has no {modality}; allowed: examples that have it")
    if not having:
        raise UserError(f"{name}: none of {len(found)} has {modality}")
    if count is None:
        return having[skip:]
    chosen = Probe(name, modality, skip + count, seed).choose(having)[skip:]
    if not chosen:
        raise UserError(
            f"{name} has only {len(having)} examples with {modality}; allowed: others to evaluate on, or fewer"
        )
    return chosen
