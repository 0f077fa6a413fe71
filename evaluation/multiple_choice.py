"""Multiple choice: which option a model finds most likely, and which letter it names."""

from __future__ import annotations

import re
from collections.abc import Sequence
from string import ascii_uppercase
from typing import Literal

Normalisation = Literal["none", "bytes"]

LETTER_INSTRUCTION = "Answer with the letter of the right option."

# "B", "(b)", "**C**", "d." or "A)" alone on the first line; a bare "A" before other words is the article.
_ALONE = re.compile(r"^\W*([A-Za-z])\W*$")
_LEADING = re.compile(r"^\W*([A-Z])\s*[.):,*\]\"']")
# "the answer is (B)", "option C", "I would choose D"; the article is recognised by the lower-case word after it.
_NAMED = re.compile(
    r"\b(?:answer|option|choice|choose|select|pick)(?:\s+(?:is|would be|should be|option))*\s*:?\s*[\"'(*\[]*([A-Z])\b"
    r"(?!\s+[a-z])",
)
_BRACKETED = re.compile(r"\(([A-Z])\)")


def likeliest(log_likelihoods: Sequence[float], options: Sequence[str], normalisation: Normalisation = "none") -> int:
    """Returns the index of the option with the highest log-likelihood (the first of equals).

    Args:
        log_likelihoods: Summed over each option's tokens, in nats.
        options: Their texts.
        normalisation: ``none`` compares the sums (lm-eval's ``acc``), ``bytes`` the sums over the number of bytes
            (lm-eval's ``acc_norm``), which does not favour short options.

    Raises:
        ValueError: If the two sequences differ in length or are empty.
    """
    if len(log_likelihoods) != len(options) or not options:
        raise ValueError(f"likeliest: one likelihood an option expected, got {len(log_likelihoods)} and {len(options)}")
    sizes = [len(option.encode()) if normalisation == "bytes" else 1 for option in options]
    scores = [value / max(size, 1) for value, size in zip(log_likelihoods, sizes, strict=True)]
    return max(range(len(scores)), key=lambda index: scores[index])


def lettered(question: str, options: Sequence[str], instruction: str = LETTER_INSTRUCTION) -> str:
    """Writes the question with its options under letters and an instruction, one line each.

    Raises:
        ValueError: If there are more options than letters.
    """
    if len(options) > len(ascii_uppercase):
        raise ValueError(f"lettered: at most {len(ascii_uppercase)} options are allowed, got {len(options)}")
    lines = [f"{letter}. {option}" for letter, option in zip(ascii_uppercase, options, strict=False)]
    return "\n".join([question, *lines, *([instruction] if instruction else [])])


def named_letter(response: str, number: int) -> str | None:
    """Finds the letter that a response names, in upper case; None if it names none of the first ``number``.

    VoiceBench searches for a long list of phrases and draws a random letter if it finds none; here a response without a
    letter is wrong, so that a score does not depend on a draw.

    Args:
        response: The model's words.
        number: How many options there were.
    """
    allowed = ascii_uppercase[:number]
    text = response.strip()
    first = text.splitlines()[0] if text else ""
    for pattern, searched in ((_ALONE, first), (_LEADING, first), (_NAMED, text), (_BRACKETED, text)):
        match = pattern.search(searched)
        if match and match.group(1).upper() in allowed:
            return match.group(1).upper()
    return None
