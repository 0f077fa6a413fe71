"""Combinations that make no sense are refused when the model is built, with the reason."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from textkeep.lightning_modules import (
    AdaptorOnly,
    AnswerCrossEntropy,
    ConcatMLP,
    CTCAlignment,
    FullFineTuning,
    SpeechLLM,
    WhisperEncoder,
)

Build = Callable[[], dict[str, Any]]

REFUSED: dict[str, tuple[Build, str]] = {
    "one objective twice": (
        lambda: {"objectives": [AnswerCrossEntropy(), AnswerCrossEntropy(0.5)]},
        "two are named 'answer_ce'; give it once",
    ),
    "full tuning by an objective that leaves the LLM alone": (
        lambda: {"tuning": FullFineTuning(), "objectives": [CTCAlignment()]},
        "CTCAlignment does not run the LLM, which FullFineTuning would train; add AnswerCrossEntropy",
    ),
    "an objective without weight": (
        lambda: {"objectives": [AnswerCrossEntropy(0.0)]},
        "AnswerCrossEntropy: weight is 0.0, but must be positive",
    ),
}

ALLOWED: dict[str, Build] = {
    "adaptor by CTC alone": lambda: {"tuning": AdaptorOnly(), "objectives": [CTCAlignment()]},
    "full tuning by both": lambda: {"tuning": FullFineTuning(), "objectives": [AnswerCrossEntropy(), CTCAlignment()]},
}


def build(parts: Build, llm: Path, whisper: Path) -> SpeechLLM:
    return SpeechLLM(str(llm), WhisperEncoder(str(whisper)), ConcatMLP(5, 16), **parts())


@pytest.mark.parametrize(("parts", "message"), REFUSED.values(), ids=REFUSED)
def test_it_is_refused(parts: Build, message: str, tiny_llm_dir: Path, tiny_whisper_dir: Path) -> None:
    with pytest.raises(ValueError, match=message):
        build(parts, tiny_llm_dir, tiny_whisper_dir)


@pytest.mark.parametrize("parts", ALLOWED.values(), ids=ALLOWED)
def test_it_is_allowed(parts: Build, tiny_llm_dir: Path, tiny_whisper_dir: Path) -> None:
    assert build(parts, tiny_llm_dir, tiny_whisper_dir).llm is None
