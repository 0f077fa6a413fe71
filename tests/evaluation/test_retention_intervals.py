"""No interval of an accuracy collapses to a point, whatever the answers; those of losses are left to the bootstrap."""

from __future__ import annotations

import pytest

from textkeep.evaluation import Prediction, summarize


def records(right: list[bool], f1: float = 1.0) -> list[Prediction]:
    return [
        Prediction(f"q{i}", modality, prediction="x", correct=c, exact=c, f1=f1 if c else 0.0, loss=1.0, tokens=2)
        for i, c in enumerate(right)
        for modality in ("text", "speech")
    ]


@pytest.mark.parametrize("items", [1, 2, 4, 10])
@pytest.mark.parametrize("share", [0.0, 0.5, 1.0])
def test_no_share_and_no_change_of_one_is_a_point(items: int, share: float) -> None:
    before = [i < share * items for i in range(items)]
    for after in (before, [not right for right in before], [True] * items, [False] * items):
        summary = summarize(records(after), records(before))
        shares = [key for key in summary.values if "loss" not in key]
        assert {"text_accuracy", "text_exact", "text_f1", "speech_accuracy_change"} <= set(shares)
        for key in shares:
            low, high = summary.intervals[key]
            assert low <= summary.values[key] <= high, key
            assert high - low > 0.1, key
            top = 1.0 if not key.endswith("kept") else float("inf")
            assert (-1.0 if key.endswith("change") else 0.0) <= low < high <= top, key
