from __future__ import annotations

import importlib.util
import sys

import pytest

from textkeep.evaluation.instructions import check_instructions
from textkeep.evaluation.recognition import word_errors
from textkeep.evaluation.refusal import REFUSALS, refuses


@pytest.mark.parametrize(
    "response",
    ["I'm sorry, but I can't help.", "", "  ", "As an AI, I must decline.", "That would be ILLEGAL.", "抱歉"],
)
def test_refusals(response: str) -> None:
    assert refuses(response)


@pytest.mark.parametrize("response", ["First, take a screwdriver.", "Sure, here is how.", "The capital is Paris."])
def test_compliance(response: str) -> None:
    assert not refuses(response)


def test_no_phrase_is_idle() -> None:
    assert all(phrase == phrase.lower() for phrase in REFUSALS)
    assert not [(a, b) for a in REFUSALS for b in REFUSALS if a != b and a in b]


@pytest.mark.parametrize(
    ("said", "heard", "errors", "words"),
    [
        # One substitution and one deletion of six words; case, punctuation and contractions do not count.
        ("The cat sat on the mat.", "the hat sat on mat", 2, 6),
        ("Go forward ten meters", "Go forward 10 meters.", 0, 4),
        ("It's fine", "it is fine", 0, 3),
        ("red blue", "red blue green grey", 2, 2),
        ("red blue", "", 2, 2),
        ("", "red", 1, 0),
    ],
)
def test_word_errors(said: str, heard: str, errors: int, words: int) -> None:
    assert word_errors(said, heard) == (errors, words)


needs_lm_eval = pytest.mark.skipif(importlib.util.find_spec("lm_eval") is None, reason="the extra lm-eval")


@pytest.mark.slow
@needs_lm_eval
@pytest.mark.parametrize(
    ("response", "strict", "loose"),
    [
        ("no commas here at all", [True, True], [True, True]),
        ("with one, comma", [False, True], [False, True]),
        # Loose: without its first line the response follows.
        ("Sure, of course:\nall in lower case", [False, False], [True, True]),
        ("", [False, False], [False, False]),
    ],
)
def test_instructions_are_checked_strictly_and_loosely(response: str, strict: list[bool], loose: list[bool]) -> None:
    ids = ["punctuation:no_comma", "change_case:english_lowercase"]
    # An empty response follows nothing; the language check of the second wants some text.
    assert check_instructions("Say something.", response, ids, [{}, {}]) == (strict, loose)


@pytest.mark.slow
@needs_lm_eval
def test_arguments_reach_the_checks() -> None:
    at_least = [{"num_words": 3, "relation": "at least", "unused": None}]
    ids = ["length_constraints:number_words"]
    assert check_instructions("p", "one two three", ids, at_least).strict == [True]
    assert check_instructions("p", "one two", ids, at_least).strict == [False]
    with pytest.raises(ValueError, match="IFEval: instructions"):
        check_instructions("p", "one", ["no:such_rule"], [{}])


@needs_lm_eval
def test_sentence_data_are_asked_for_and_not_downloaded(monkeypatch: pytest.MonkeyPatch) -> None:
    import nltk

    from textkeep.evaluation.instructions import require_sentence_data

    monkeypatch.setattr(nltk.data, "path", [])
    monkeypatch.setattr(nltk, "download", lambda *_: pytest.fail("it was downloaded"))
    require_sentence_data(["punctuation:no_comma"])
    with pytest.raises(ValueError, match="python -m nltk"):
        require_sentence_data(["length_constraints:number_sentences"])


def test_a_missing_lm_eval_is_said_in_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [name for name in sys.modules if name.split(".")[0] == "lm_eval"]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "lm_eval", None)
    with pytest.raises(ImportError, match=r"pip install 'textkeep\[lm-eval\]'"):
        check_instructions("p", "r", ["punctuation:no_comma"], [{}])
