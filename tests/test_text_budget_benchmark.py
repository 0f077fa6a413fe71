"""The benchmark of budgets: its arms, what they are told to do, and how its table judges them."""

from __future__ import annotations

from typing import Any

import pytest

from benchmarks.text_budget.__main__ import _parser
from benchmarks.text_budget.arms import Arm, arms, settings
from benchmarks.text_budget.table import table

ROW: dict[str, Any] = {
    "arm": "control=0.02_seed=0",
    "kind": "control=0.02",
    "seed": 0,
    "weight": 1.0,
    "budget": 0.02,
    "watched": [0.01, 0.0, 0.02],
    "speech_loss": [0.9, 0.7, 1.1],
    "speech_accuracy": [0.25, 0.12, 0.42],
    "last_weight": 3.0,
    "alpha": None,
}


def test_all_seeds_keep_to_the_budget_first_and_some_have_what_they_are_held_against() -> None:
    options = _parser().parse_args(["--out", "x", "--seeds", "3", "4", "--frontier", "3", "--weights", "0.1", "10"])
    assert [arm.name for arm in arms(options)] == [
        "control=0.02_seed=3",
        "control=0.02_seed=4",
        "free_seed=3",
        "fixed=0.1_seed=3",
        "fixed=10_seed=3",
        "rollback=0.02_seed=3",
    ]


def test_only_arms_with_a_budget_have_actions_and_the_text_of_the_verdict_is_only_read() -> None:
    options = _parser().parse_args(["--out", "x"])
    found = {arm.kind: settings(arm, options) for arm in (Arm(0), Arm(0, 2.0), Arm(0, 2.0, 0.05), Arm(0, budget=0.02))}
    budgets = {kind: [c["init_args"] for c in given["trainer"]["callbacks"][:2]] for kind, given in found.items()}
    named = {kind: [action["class_path"] for action in first["actions"]] for kind, (first, _) in budgets.items()}
    assert named == {
        "free": [],
        "fixed=2": [],
        "control=0.05": ["ControlWeight", "RollBack"],
        "rollback=0.02": ["RollBack"],
    }
    assert [first["max_increase"] for first, _ in budgets.values()] == [1.0, 1.0, 0.05, 0.02]
    assert [first["every_n_steps"] for first, _ in budgets.values()] == [40, 40, 4, 40]
    assert all(second["text"] == "heldout" and second["actions"] == [] for _, second in budgets.values())
    terms = [[term["class_path"] for term in given["model"]["objectives"]] for given in found.values()]
    assert terms == [["AnswerCrossEntropy", *remedy] for remedy in ([], *[["PlainTextDistillation"]] * 2, [])]
    sources = {probe["source"] for given in found.values() for probe in given["data"]["probes"].values()}
    assert sources == {"plain-text/probe", "plain-text/evaluation"}


@pytest.mark.parametrize(
    ("heldout", "verdict", "seeds"),
    [
        ([0.015, 0.01, 0.02], "holds", (1, 1)),
        ([0.025, 0.018, 0.03], "holds within the interval", (1, 0)),
        ([0.03, 0.021, 0.04], "not", (0, 0)),
    ],
)
def test_a_budget_is_judged_on_held_out_text(heldout: list[float], verdict: str, seeds: tuple[int, int]) -> None:
    lines = table([{**ROW, "heldout": heldout}]).splitlines()
    assert lines[2].endswith(f"| {verdict} | 25 [12, 42] | 0.90 [0.70, 1.10] | 3, - |")
    assert lines[-1] == (
        f"control=0.02: holds on held-out text in {seeds[0]} of 1 seeds, in {seeds[1]} of them by the estimate"
    )


def test_an_arm_without_a_budget_has_no_verdict_and_one_that_failed_is_named() -> None:
    free = {**ROW, "arm": "free_seed=0", "kind": "free", "budget": None, "heldout": [0.1, 0.05, 0.2]}
    shown = table([free, {"arm": "control=0.02_seed=1", "error": "exit code 1: log"}])
    assert "| +0.100 [+0.050, +0.200] | - |" in shown
    assert shown.endswith("\n\ncontrol=0.02_seed=1: exit code 1: log")
