"""Matched pairs: the same questions spoken and written."""

from __future__ import annotations

from collections.abc import Sequence

from ..sources.example import Example, Modality

_ALL: tuple[Modality, ...] = ("speech", "text")


def matched(examples: Sequence[Example]) -> tuple[list[Example], list[Modality]]:
    """Returns the examples that have every modality which any of them has, and these modalities.

    Of text questions alone all are kept, as text; of spoken questions with and without text those with both.
    """
    modalities = [modality for modality in _ALL if any(example.has(modality) for example in examples)]
    return [example for example in examples if all(example.has(m) for m in modalities)], modalities
