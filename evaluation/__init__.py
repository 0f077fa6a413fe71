"""How answers are scored: rules, intervals and paired tests, and per-item records."""

from ..foundation.run_names import FORGETTING, MISALIGNMENT
from .clustered_correlation import correlation
from .divergences import (
    ItemDivergence,
    read_divergences,
    store_divergences,
    summarize_divergences,
)
from .loss_increase import Losses, LossIncrease, loss_increase
from .paired_proportions import paired_difference, paired_ratio
from .paired_tests import McNemar, holm, mcnemar, shown_p
from .predictions import Prediction, read_lines, read_predictions, write_predictions
from .question_answering import exact_match, qa_match, token_f1
from .retention import MODALITIES, RetentionSummary, forget_after, store_evaluation, summarize
from .seeds_and_items import Estimate, common_items, crossed_t
from .statistics import (
    NOT_NEGATIVE,
    Interval,
    bootstrap_ratio,
    mean_interval,
    paired_bootstrap,
    share_interval,
    wilson_interval,
)

__all__ = [
    "FORGETTING",
    "MISALIGNMENT",
    "MODALITIES",
    "NOT_NEGATIVE",
    "Estimate",
    "Interval",
    "ItemDivergence",
    "LossIncrease",
    "Losses",
    "McNemar",
    "Prediction",
    "RetentionSummary",
    "bootstrap_ratio",
    "common_items",
    "correlation",
    "crossed_t",
    "exact_match",
    "forget_after",
    "holm",
    "loss_increase",
    "mcnemar",
    "mean_interval",
    "paired_bootstrap",
    "paired_difference",
    "paired_ratio",
    "qa_match",
    "read_divergences",
    "read_lines",
    "read_predictions",
    "share_interval",
    "shown_p",
    "store_divergences",
    "store_evaluation",
    "summarize",
    "summarize_divergences",
    "token_f1",
    "wilson_interval",
    "write_predictions",
]
