"""Shares of clips, words and instructions have intervals that do not collapse where all items agree."""

from __future__ import annotations

import pytest

from textkeep.callbacks import InstructionFollowing
from textkeep.callbacks.evaluations.speech_recognition import heard_record, word_error_summary
from textkeep.evaluation import Prediction


@pytest.mark.parametrize("heard", ["a b c", "a b x", "x y z"])
def test_no_share_of_clips_or_words_is_a_point(heard: str) -> None:
    summary = word_error_summary([heard_record(f"c{i}", "a b c", heard, "s") for i in range(4)])
    for key in ("repeated", "without_error", *(["wer"] if heard == "a b c" else [])):
        low, high = summary.intervals[key]
        assert low <= summary.values[key] <= high
        assert high - low > 0.3, key


def test_no_share_of_instructions_is_a_point() -> None:
    figures = {"strict": 2.0, "loose": 2.0, "instructions": 2.0}
    asked = [Prediction(f"i{i}", "text", prediction="x", correct=True, figures=figures) for i in range(4)]
    summary = InstructionFollowing("set").summarize(asked, [])
    for key in ("text_strict_instructions", "text_loose_instructions", "text_loose_accuracy"):
        low, high = summary.intervals[key]
        assert (summary.values[key], high) == (1.0, 1.0)
        assert low < 0.7
