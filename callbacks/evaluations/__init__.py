"""Scoring answers during a run: Retention, the evaluation suite and what it can measure."""

from __future__ import annotations

from ...foundation.lazy_exports import from_modules

_PUBLIC = {
    "Cascade": "cascade",
    "ChoicesByLetter": "choices_by_letter",
    "ChoicesByLikelihood": "choices_by_likelihood",
    "Divergence": "divergence",
    "Evaluation": "evaluation",
    "EvaluationSuite": "evaluation_suite",
    "InstructionFollowing": "instruction_following",
    "Measured": "evaluation",
    "PlainTextLoss": "plain_text_loss",
    "PredictionWriter": "prediction_writer",
    "Refusals": "refusals",
    "Retention": "retention",
    "SpeechRecognition": "speech_recognition",
    "TextBenchmarks": "text_benchmarks",
}

__all__ = sorted(_PUBLIC)
__getattr__ = from_modules(__name__, _PUBLIC)
