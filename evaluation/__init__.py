"""TextKeep: what a model's answers are worth. Scores of answers, intervals and paired tests, per-item records."""

from .predictions import Prediction, read_lines, read_predictions, write_lines, write_predictions
from .question_answering import exact_match, qa_match, token_f1
from .retention import MODALITIES, RetentionSummary, forget_after, store_evaluation, summarize
from .statistics import (
    Interval,
    McNemar,
    bootstrap_ratio,
    holm,
    mcnemar_exact,
    paired_bootstrap,
    wilson_interval,
)

__all__ = [
    "MODALITIES",
    "Interval",
    "McNemar",
    "Prediction",
    "RetentionSummary",
    "bootstrap_ratio",
    "exact_match",
    "forget_after",
    "holm",
    "mcnemar_exact",
    "paired_bootstrap",
    "qa_match",
    "read_lines",
    "read_predictions",
    "store_evaluation",
    "summarize",
    "token_f1",
    "wilson_interval",
    "write_lines",
    "write_predictions",
]
