"""What ``print`` shows of results."""

from __future__ import annotations

from textkeep.foundation.plain_tables import plain_table
from textkeep.importance import Estimate, Shift
from textkeep.importance.faithfulness import Faithfulness, Verification


def test_columns_are_aligned_the_first_to_the_left() -> None:
    shown = plain_table("Title", ["name", "n"], [["a", "10"], ["longer", "7"]])
    assert shown == "Title\n  name     n\n  a       10\n  longer   7"


def test_a_shift_is_a_row_a_figure() -> None:
    metrics = {
        "js": Estimate(0.1234567, 0.1, 0.15, 0.02, 0.03, 0.001, 0.0123, 0.12),
        "peak_move": Estimate(2.0),
        "spearman": Estimate(0.5, 0.4, 0.6, 0.9, 0.8, 0.25, 0.95),
    }
    shift = Shift("taylor", metrics, {}, "layer_03", "layer_05", 1.0, 2.0, 2.5, 1.25, examples=24, p_floor=0.001)
    title, head, js, peak, spearman = str(shift).splitlines()
    assert title == "taylor: 24 examples, loss 2.5 -> 1.25 nats a token, peak layer_03 -> layer_05"
    assert head.split("  ")[1].strip() == "shift"
    assert js.split() == ["js", "0.1235", "[0.1,", "0.15]", "0.0123", "<=", "0.001"]  # at the floor: at most
    assert peak.split() == ["peak_move", "2", "-", "-", "-"]
    assert spearman.split()[-1] == "0.25"
    assert repr(shift) == str(shift)


def test_a_verification_is_a_row_a_score() -> None:
    results = [Faithfulness("taylor", 0.1, 0.82, 0.7, 0.9, 0.75, 0.1, 0.2)]
    found = Verification(results, {0.1: [0.1]}, {"taylor": [1.0]}, ["a", "b"], "matrix", {}, {}, 2.0, 16, 12)
    assert str(found).splitlines()[0] == "2 groups (matrix), 16 examples, 12 others"
    assert str(found).splitlines()[2].split() == ["taylor", "0.1", "0.82", "[0.70,", "0.90]", "75%"]
