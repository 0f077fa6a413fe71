from __future__ import annotations

import pytest

from textkeep.evaluation.multiple_choice import lettered, likeliest, named_letter


def test_likeliest_compares_sums_or_sums_by_byte() -> None:
    scores, options = [-4.0, -5.0, -12.0], ["no", "perhaps", "é"]
    assert likeliest(scores, options) == 0
    assert likeliest(scores, options, "bytes") == 1  # -2, -5/7, -6: two bytes of é
    assert likeliest([-1.0, -1.0], ["a", "b"]) == 0
    with pytest.raises(ValueError, match="one likelihood an option"):
        likeliest([-1.0], ["a", "b"])


def test_lettered_writes_a_line_an_option() -> None:
    assert lettered("Which?", ["x", "y"], "Choose.") == "Which?\nA. x\nB. y\nChoose."
    assert lettered("Which?", ["x"], "") == "Which?\nA. x"
    with pytest.raises(ValueError, match="at most 26"):
        lettered("Which?", ["x"] * 27)


@pytest.mark.parametrize(
    ("response", "letter"),
    [
        ("B", "B"),
        (" b. ", "B"),
        ("(C)", "C"),
        ("**D**", "D"),
        ("A. a banana", "A"),
        ("B) it is yellow", "B"),
        ("C: yellow", "C"),
        ("The answer is C.", "C"),
        ("The correct answer is (B), because it is.", "B"),
        ("The answer is option D.", "D"),
        ("I would choose B", "B"),
        ("Therefore it must be (A).", "A"),
        ("answer: **B**", "B"),
        # No letter: the article, a word, a letter beyond the options, silence.
        ("A banana is yellow.", None),
        ("The answer is A banana.", None),
        ("Yellow", None),
        ("E", None),
        ("", None),
        ("I do not know.", None),
    ],
)
def test_named_letter(response: str, letter: str | None) -> None:
    assert named_letter(response, 4) == letter
