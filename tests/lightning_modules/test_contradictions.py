"""Combinations that make no sense are refused when the model is built, with the reason."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from textkeep.lightning_modules import (
    EWC,
    L2SP,
    AdaptorOnly,
    AnswerCrossEntropy,
    ConcatMLP,
    CTCAlignment,
    DepthUpScaling,
    FullFineTuning,
    ImportanceRates,
    LoRA,
    OPLoRA,
    PartialFineTuning,
    PiSSA,
    SpeechLLM,
    SpeechTurns,
    TextTwinDistillation,
    WhisperEncoder,
)
from textkeep.lightning_modules.combination import check_combination
from textkeep.lightning_modules.contract import Need

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
    "weights drawn back that never move: EWC on a frozen LLM": (
        lambda: {"tuning": AdaptorOnly(), "objectives": [AnswerCrossEntropy(), EWC("data/fisher")]},
        "EWC draws the LLM's own weights back, but AdaptorOnly never moves them",
    ),
    "the same under LoRA": (
        lambda: {"tuning": LoRA(), "objectives": [AnswerCrossEntropy(), L2SP()]},
        "L2SP draws the LLM's own weights back, but LoRA never moves them",
    ),
    "a penalty first": (lambda: {"objectives": [L2SP(), AnswerCrossEntropy()]}, "the first must be over tokens"),
    "DoRA behind a gate": (
        lambda: {"tuning": LoRA(use_dora=True, gate=SpeechTurns())},
        "use_dora rescales the weight itself, which a gate cannot take back",
    ),
    "DoRA that begins in the weight": (lambda: {"tuning": LoRA(use_dora=True, start=PiSSA())}, "leave out one"),
    "orthogonal updates of row lengths": (
        lambda: {"tuning": OPLoRA(use_dora=True)},
        "OPLoRA: use_dora rescales the rows of the whole weight, protected directions included",
    ),
    "weights drawn back under inserted layers": (
        lambda: {"tuning": DepthUpScaling(), "objectives": [AnswerCrossEntropy(), L2SP()]},
        "L2SP draws the LLM's own weights back, but DepthUpScaling never moves them",
    ),
    "importance from two places": (
        lambda: {"tuning": FullFineTuning(rates=ImportanceRates(snapshot="a", probe="b"))},
        "give either a snapshot .* or a probe to measure on .* got both",
    ),
    "partial tuning of nothing": (lambda: {"tuning": PartialFineTuning()}, "say what trains, by layers or by patterns"),
    "distillation of nothing": (
        lambda: {"objectives": [AnswerCrossEntropy(), TextTwinDistillation(speech=0, text=0)]},
        "at least 0 each and one positive",
    ),
    "an objective without weight": (
        lambda: {"objectives": [AnswerCrossEntropy(0.0)]},
        "AnswerCrossEntropy: weight is 0.0, but must be positive",
    ),
}

ALLOWED: dict[str, Build] = {
    "LoRA with rates and distillation": lambda: {
        "tuning": LoRA(rates=ImportanceRates(probe="heldout_text")),
        "objectives": [AnswerCrossEntropy(), TextTwinDistillation()],
    },
    "full tuning with L2-SP": lambda: {"objectives": [AnswerCrossEntropy(), L2SP()]},
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


class OnRates(AnswerCrossEntropy):
    """A user's objective that makes sense with layer-wise rates alone."""

    name = "on_rates"
    needs = (Need("rates", "{owner} weighs layers, and {other} has no layer-wise rates; give it some"),)


class TaughtByText(AdaptorOnly):
    """A user's strategy that makes sense with an objective of a certain kind alone."""

    needs = (Need("teaches_text", "none teaches text, which {owner} needs; add one"),)


class TextTeacher(CTCAlignment):
    teaches_text = True


def test_what_a_class_of_the_user_needs_is_checked_too() -> None:
    with pytest.raises(ValueError, match="OnRates weighs layers, and FullFineTuning has no layer-wise rates; give it"):
        check_combination(FullFineTuning(), [AnswerCrossEntropy(), OnRates()])
    check_combination(FullFineTuning(rates=ImportanceRates(probe="text")), [OnRates()])
    with pytest.raises(ValueError, match="none teaches text, which TaughtByText needs; add one"):
        check_combination(TaughtByText(), [AnswerCrossEntropy(), CTCAlignment()])
    check_combination(TaughtByText(), [AnswerCrossEntropy(), TextTeacher()])  # one of them is enough
