"""What a user may get wrong about a budget of text is told in a line before training."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tests.support.overlays import CONFIGS, tiny_overlay, words
from textkeep.cli.main import main

BUDGET, CONTROL = (CONFIGS / "callbacks" / f"{name}.yaml" for name in ("text_budget", "text_budget_control"))


@pytest.mark.parametrize(
    ("overlay", "more", "message"),
    [
        (BUDGET, ("--model.tuning", "AdaptorOnly"), "AdaptorOnly cannot change what the LLM does with text"),
        (BUDGET, ("--model.tuning", "DepthUpScaling"), "DepthUpScaling has no way back"),
        (
            CONTROL,
            ("--model.objectives", "null"),
            "no remedy 'plain_text_kl' (allowed: none; add one, such as PlainTextDistillation)",
        ),
        (
            None,
            ("--trainer.callbacks+=TextBudget", "--trainer.callbacks.max_increase=0"),
            "TextBudget.max_increase: 0.0 (allowed: positive",
        ),
        (
            None,
            (
                "--trainer.callbacks+=TextBudget",
                "--trainer.callbacks.max_increase=0.1",
                "--trainer.callbacks.text=plain-text/none",
            ),
            "TextBudget.text: plain-text/none: the embedded data set has no such split (allowed: plain-text/evaluation",
        ),
    ],
    ids=["adaptor", "inserted", "no remedy", "no budget", "no text"],
)
def test_a_line_says_what_is_allowed(
    overlay: Path | None,
    more: tuple[str, ...],
    message: str,
    tiny_settings: dict[str, Any],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    tiny = tiny_overlay(tiny_settings, tmp_path, 1, [])
    assert main(words(overlay, tiny, tmp_path / "run", *more)) == 2
    last = capsys.readouterr().err.strip().splitlines()[-1]
    assert message in last
    assert not (tmp_path / "run").exists()
