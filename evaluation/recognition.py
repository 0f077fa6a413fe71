"""Word errors of a transcript against the reference."""

from __future__ import annotations

from functools import cache
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from transformers.models.whisper.english_normalizer import EnglishTextNormalizer


class WordErrors(NamedTuple):
    """Errors of one transcript.

    Attributes:
        errors: Substitutions, deletions and insertions.
        words: Words of the reference.
    """

    errors: int
    words: int


@cache
def _normaliser() -> EnglishTextNormalizer:
    from transformers.models.whisper.english_normalizer import EnglishTextNormalizer

    return EnglishTextNormalizer({})


def word_errors(said: str, heard: str) -> WordErrors:
    """Counts word errors after Whisper's normalisation of English (case, punctuation, numbers, contractions).

    The word error rate of several clips is the sum of errors over the sum of words, which weighs each word the same.

    Args:
        said: The reference.
        heard: The transcript.
    """
    import jiwer

    reference, hypothesis = _normaliser()(said).strip(), _normaliser()(heard).strip()
    if not reference:
        return WordErrors(len(hypothesis.split()), 0)
    measured = jiwer.process_words(reference, hypothesis)
    errors = measured.substitutions + measured.deletions + measured.insertions
    return WordErrors(errors, measured.hits + measured.substitutions + measured.deletions)
