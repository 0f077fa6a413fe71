"""TextKeep: what a model's answers are worth. Scores of answers, intervals and paired tests, per-item records."""

from .correlation import correlation
from .divergences import (
    FORGETTING,
    MISALIGNMENT,
    ItemDivergence,
    read_divergences,
    store_divergences,
    summarize_divergences,
)
from .paired_tests import McNemar, holm, mcnemar
from .predictions import Prediction, read_lines, read_predictions, write_lines, write_predictions
from .question_answering import exact_match, qa_match, token_f1
from .retention import MODALITIES, RetentionSummary, forget_after, store_evaluation, summarize
from .seeds_and_items import Estimate, common_items, hierarchical_bootstrap
from .statistics import Interval, bootstrap_ratio, mean_interval, paired_bootstrap, wilson_interval

__all__ = [
    "FORGETTING",
    "MISALIGNMENT",
    "MODALITIES",
    "Estimate",
    "Interval",
    "ItemDivergence",
    "McNemar",
    "Prediction",
    "RetentionSummary",
    "bootstrap_ratio",
    "common_items",
    "correlation",
    "exact_match",
    "forget_after",
    "hierarchical_bootstrap",
    "holm",
    "mcnemar",
    "mean_interval",
    "paired_bootstrap",
    "qa_match",
    "read_divergences",
    "read_lines",
    "read_predictions",
    "store_divergences",
    "store_evaluation",
    "summarize",
    "summarize_divergences",
    "token_f1",
    "wilson_interval",
    "write_lines",
    "write_predictions",
]
