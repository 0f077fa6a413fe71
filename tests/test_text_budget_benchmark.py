"""The benchmark of budgets: its arms, what they are told to do, and how its table judges them."""

from __future__ import annotations

import pytest

from benchmarks.text_budget import Arm, _parser, arms, settings, table

ROW = {"seed": 0, "weight": 1.0, "probe": [0.01, 0.0, 0.02], "speech_loss": 0.9, "last_weight": 3.0, "lr": 2e-4}


def test_a_seed_has_its_controlled_free_and_fixed_arms() -> None:
    options = _parser().parse_args(["--out", "x", "--seeds", "3", "--budgets", "0.02", "--weights", "0.1", "10"])
    assert [arm.name for arm in arms(options)] == [
        "control=0.02_seed=3",
        "free_seed=3",
        "fixed=0.1_seed=3",
        "fixed=10_seed=3",
    ]


def test_only_controlled_arms_have_an_action() -> None:
    options = _parser().parse_args(["--out", "x"])
    found = {arm: settings(arm, options) for arm in (Arm(0), Arm(0, 2.0), Arm(0, 2.0, 0.05))}
    watched = [found[arm]["trainer"]["callbacks"][0]["init_args"] for arm in found]
    assert [bool(settings["actions"]) for settings in watched] == [False, False, True]
    assert watched[2]["max_increase"] == 0.05
    assert [len(found[arm]["model"]["objectives"]) for arm in found] == [1, 2, 2]
    assert all(found[arm]["trainer"]["callbacks"][1]["init_args"]["text"] == "heldout" for arm in found)


@pytest.mark.parametrize(
    ("heldout", "verdict"),
    [([0.015, 0.01, 0.02], "yes"), ([0.025, 0.018, 0.03], "within the interval"), ([0.03, 0.021, 0.04], "no")],
)
def test_a_budget_is_judged_on_held_out_text(heldout: list[float], verdict: str) -> None:
    shown = table([{**ROW, "arm": "control=0.02_seed=0", "budget": 0.02, "heldout": heldout}])
    assert f"| {verdict} | 0.900 | 3 |" in shown.splitlines()[-1]
