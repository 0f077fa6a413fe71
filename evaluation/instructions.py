"""IFEval (arXiv 2311.07911): whether a response follows instructions that a rule can check, by lm-eval's own rules."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from types import ModuleType
from typing import Any, NamedTuple

SENTENCES = frozenset({"length_constraints:number_sentences", "change_case:capital_word_frequency"})
"""Checks that split sentences or words with NLTK's data ``punkt_tab``."""


class Followed(NamedTuple):
    """Which of an item's instructions were followed.

    Attributes:
        strict: Judged by the response as it is, one entry per instruction.
        loose: Judged by the response, or by it without its first or last line or without asterisks.
    """

    strict: list[bool]
    loose: list[bool]


def check_instructions(
    prompt: str, response: str, instructions: Sequence[str], arguments: Sequence[Mapping[str, Any]]
) -> Followed:
    """Checks a response by the rules of IFEval.

    Args:
        prompt: What the model was asked.
        response: What it answered.
        instructions: Their ids, such as ``punctuation:no_comma``.
        arguments: Arguments of each instruction; those that are None are left out.

    Raises:
        ValueError: If an instruction is unknown, its arguments do not fit, or NLTK's data is needed and missing.
        ImportError: If lm-eval is not installed.
    """
    rules = _rules()
    require_sentence_data(instructions)
    item = rules.InputExample(0, list(instructions), prompt, [dict(given) for given in arguments])
    try:
        strict = rules.test_instruction_following_strict(item, response)
        loose = rules.test_instruction_following_loose(item, response)
    except (KeyError, IndexError, TypeError) as error:
        raise ValueError(f"IFEval: instructions {list(instructions)} with {list(arguments)}: {error}") from error
    return Followed(list(strict.follow_instruction_list), list(loose.follow_instruction_list))


def require_sentence_data(instructions: Sequence[str]) -> None:
    """Refuses instructions whose check needs missing NLTK data; nothing is downloaded.

    Raises:
        ValueError: With the command that fetches it.
    """
    needed = sorted(SENTENCES & set(instructions))
    if not needed:
        return
    import nltk

    try:
        nltk.data.find("tokenizers/punkt_tab")
    except LookupError:
        raise ValueError(
            f"IFEval: {needed[0]} splits sentences with NLTK's punkt_tab, which is not here: "
            "python -m nltk.downloader punkt_tab"
        ) from None


def _rules() -> ModuleType:
    """Imports lm-eval's checks as another rank: rank 0 would download ``punkt_tab`` unasked."""
    rank = os.environ.get("LOCAL_RANK")
    os.environ["LOCAL_RANK"] = "1"
    try:
        from lm_eval.tasks.ifeval import utils
    except ImportError as error:
        raise ImportError(f"IFEval's checks come with lm-eval: pip install 'textkeep[lm-eval]' ({error})") from error
    finally:
        if rank is None:
            del os.environ["LOCAL_RANK"]
        else:
            os.environ["LOCAL_RANK"] = rank
    return utils
