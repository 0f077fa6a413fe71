"""Prompts with a rule: the shipped file, and what keeps and what breaks each rule."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from textkeep.cli.facts import main
from textkeep.preparation.spoken_facts.instruction_prompts import RULES, SUBJECTS, Rule, instruction_rows

SHIPPED = Path(__file__).resolve().parents[2] / "datamodules" / "spoken_facts"

LONG = "The sea is wide and deep, and many people live beside it because it feeds them, carries their ships, and is "
KEPT = {
    "quotation": '"The sea is blue."',
    "ending": "The sea is blue. Thank you for reading.",
    "title": "<<The sea>> It is blue.",
    "bullets": "* The sea is blue.\n* It is deep.",
    "postscript": "The sea is blue.\n\nP.S. It is deep.",
    "highlight": "The sea is *blue*.",
    "placeholder": "The sea is near [town].",
    "keywords": "It is quiet at the window.",
    "frequency": "The sea is very blue and very deep.",
    "length": LONG + "never the same from one hour to the next.",
    "two": "The sea is blue. ****** The sea is deep.",
    "sections": "Section 1\nThe sea is blue.\nSection 2\nIt is deep.",
}
"""An answer for each rule that keeps it, by hand."""


def test_the_command_makes_the_shipped_file(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([str(tmp_path / "instructions.jsonl"), "--instructions"]) == 0
    assert (tmp_path / "instructions.jsonl").read_text() == (SHIPPED / "instructions.jsonl").read_text()
    assert "96 prompts with a rule" in capsys.readouterr().out


def test_every_rule_meets_every_subject_once() -> None:
    rows = instruction_rows()
    assert len({row["id"] for row in rows}) == len({row["question"] for row in rows}) == len(RULES) * len(SUBJECTS)


def followed(rule: Rule, response: str) -> bool:
    from textkeep.evaluation.instructions import check_instructions

    (strict,) = check_instructions("", response, [rule.instruction], [rule.arguments]).strict
    return strict


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule.name)
def test_a_rule_is_kept_by_what_keeps_it_and_broken_by_every_trained_answer(rule: Rule) -> None:
    """The style that training teaches must not keep a rule by chance: no target and no other rule's answer does."""
    pytest.importorskip("lm_eval")
    assert followed(rule, KEPT[rule.name])
    targets = [json.loads(line)["target"] for line in (SHIPPED / "train.jsonl").read_text().splitlines()]
    assert not any(followed(rule, target) for target in dict.fromkeys(targets))
    others = [answer for name, answer in KEPT.items() if name != rule.name]
    assert not any(followed(rule, answer) for answer in others)
