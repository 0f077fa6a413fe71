"""Callbacks and loggers: when a run measures, saves and speaks."""

from __future__ import annotations

from importlib import import_module
from typing import Any

_PUBLIC = {
    "Cascade": "evaluations.cascade",
    "ChoicesByLetter": "evaluations.choices_by_letter",
    "ChoicesByLikelihood": "evaluations.choices_by_likelihood",
    "Divergence": "divergence",
    "EvaluationSuite": "evaluation_suite",
    "GracefulStop": "graceful_stop",
    "ImportanceTracker": "importance_tracker",
    "InstructionFollowing": "evaluations.instruction_following",
    "LogProgress": "log_progress",
    "PlainTextLoss": "evaluations.plain_text_loss",
    "PredictionWriter": "prediction_writer",
    "Refusals": "evaluations.refusals",
    "ResilientWandbLogger": "wandb_logger",
    "Retention": "retention",
    "RunCSVLogger": "csv_logger",
    "RunCheckpoint": "checkpoint",
    "RunProgressBar": "run_progress_bar",
    "SpeechRecognition": "evaluations.speech_recognition",
    "SubspaceOverlap": "subspace_overlap",
    "TextBenchmarks": "evaluations.text_benchmarks",
    "TuningImportance": "tuning_importance",
    "WeightChange": "weight_change",
}

__all__ = sorted(_PUBLIC)


def __getattr__(name: str) -> Any:
    """Import a public name at its first use: one callback must not wait for the imports of the others."""
    if name not in _PUBLIC:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f".{_PUBLIC[name]}", __name__), name)
