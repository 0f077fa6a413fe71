"""Scores of one answer against its accepted spellings."""

from __future__ import annotations

import re
import string
import unicodedata
from collections import Counter
from collections.abc import Sequence

import regex

# The "simple tokenizer" of open-domain QA (DrQA, DPR, EMDR2), which UltraEval-Audio's `qa-exist-match` uses too: a run
# of letters, digits and combining marks is a token, any other visible character is its own token.
_TOKEN = regex.compile(r"[\p{L}\p{N}\p{M}]+|[^\p{Z}\p{C}]")
_ARTICLE = re.compile(r"\b(a|an|the)\b")
_PUNCTUATION = str.maketrans("", "", string.punctuation)


def tokenize(text: str) -> list[str]:
    """Splits text into lower-case tokens after NFD normalisation.

    Example:
        >>> tokenize("It's São Paulo.")
        ['it', "'", 's', 'são', 'paulo', '.']
    """
    return [match.group().lower() for match in _TOKEN.finditer(unicodedata.normalize("NFD", text))]


def qa_match(prediction: str, answers: Sequence[str]) -> bool:
    """Returns whether the token sequence of a gold answer occurs in the response.

    The metric of LLaMA-Omni2 and UltraEval-Audio (``qa-exist-match``) for spoken question answering. Whole tokens are
    compared: "art" does not occur in "Bart". An answer without any token (an empty string) never matches; in the
    original, it always matches.

    Args:
        prediction: The model's response.
        answers: The accepted spellings of the answer.
    """
    tokens = tokenize(prediction)
    return any(_occurs(gold, tokens) for gold in map(tokenize, answers) if gold)


def _occurs(needle: list[str], haystack: list[str]) -> bool:
    length = len(needle)
    return any(haystack[i : i + length] == needle for i in range(len(haystack) - length + 1))


def normalize_answer(text: str) -> str:
    """Normalises as SQuAD does: lower case, no ASCII punctuation, no English articles, single spaces."""
    return " ".join(_ARTICLE.sub(" ", text.lower().translate(_PUNCTUATION)).split())


def exact_match(prediction: str, answers: Sequence[str]) -> bool:
    """Returns whether the response, after SQuAD's normalisation, equals a gold answer."""
    return normalize_answer(prediction) in {normalize_answer(answer) for answer in answers}


def token_f1(prediction: str, answers: Sequence[str]) -> float:
    """Returns SQuAD's F1: harmonic mean of token precision and recall, the best over the gold answers, in [0, 1].

    Two texts that are both empty after normalisation agree (1.0), as in the official script of SQuAD 2.0.
    """
    return max((_f1(prediction, answer) for answer in answers), default=0.0)


def _f1(prediction: str, answer: str) -> float:
    predicted, gold = normalize_answer(prediction).split(), normalize_answer(answer).split()
    if not predicted or not gold:
        return float(predicted == gold)
    common = sum((Counter(predicted) & Counter(gold)).values())
    return 2 * common / (len(predicted) + len(gold))
