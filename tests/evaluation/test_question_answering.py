from __future__ import annotations

import unicodedata

import pytest

from textkeep.evaluation import exact_match, qa_match, token_f1
from textkeep.evaluation.question_answering import tokenize


@pytest.mark.parametrize(
    ("prediction", "answers", "expected"),
    [
        ("The capital of France is Paris.", ["Paris"], True),
        ("the capital is PARIS", ["paris"], True),
        ("He is called Bart.", ["art"], False),  # whole tokens only
        ("New-York", ["New York"], False),  # the hyphen is a token
        ("It is New York City.", ["York City"], True),
        ("York, City", ["York City"], False),
        ("United States", ["U.S.", "United States"], True),
        ("I was in the U.S. then", ["U.S."], True),
        ("Sao Paulo", ["São Paulo"], False),  # accents count, as in the original
        (unicodedata.normalize("NFC", "São Paulo"), [unicodedata.normalize("NFD", "São Paulo")], True),
        ("", ["Paris"], False),
        ("Paris", [], False),
        ("Paris", [""], False),
        ("Paris", ["", "paris"], True),
        ("1,024 bytes", ["1024"], False),
        ("about 3.5 metres", ["3.5"], True),
    ],
)
def test_gold_answer_occurs_in_the_response(prediction: str, answers: list[str], expected: bool) -> None:
    assert qa_match(prediction, answers) is expected


def test_tokens_are_runs_of_letters_digits_and_marks_or_single_signs() -> None:
    assert tokenize("Ça coûte 12€!\n") == [
        unicodedata.normalize("NFD", "ça"),
        unicodedata.normalize("NFD", "coûte"),
        "12",
        "€",
        "!",
    ]


def test_scores_follow_the_squad_script() -> None:
    assert exact_match("The  Eiffel Tower!", ["eiffel tower"])
    assert not exact_match("Eiffel Tower in Paris", ["eiffel tower"])
    # Two common tokens, precision 2/4 (articles are dropped), recall 2/2.
    assert token_f1("the Eiffel Tower in Paris", ["Eiffel Tower"]) == pytest.approx(2 * 0.5 * 1 / 1.5)
    # A repeated token counts as often as it occurs in both.
    assert token_f1("b b b", ["b b c"]) == pytest.approx(2 / 3)
    assert token_f1("x", ["y", "x"]) == 1.0
    assert token_f1("", [""]) == 1.0
    assert token_f1("", ["x"]) == 0.0
    assert token_f1("x", []) == 0.0
