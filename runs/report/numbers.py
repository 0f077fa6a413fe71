"""How a verdict formats its figures, and the significance level at which it decides."""

from __future__ import annotations

import math

from ...evaluation import McNemar, shown_p

Limits = tuple[float, float, float]
"""A figure with its lower and upper limit."""

LEVEL = 0.05
NATS = (
    "Nats a token: how much harder each token of the text has become to predict, in natural logarithms. At +0.1 "
    "the tokens are on average a tenth less likely (e^-0.1 = 0.90), at +0.69 half as likely."
)
"""Explains the unit of the first screen."""
SPLITS = {"val": "validation", "test": "test"}


def percent(value: float, low: float, high: float) -> str:
    """Formats as ``20 % [15, 26]``."""
    return f"{100 * value:.3g} % [{_bound(100 * low)}, {_bound(100 * high)}]"


def number(value: float, low: float, high: float, signed: bool = False) -> str:
    """Formats as ``0.35 [0.21, 0.5]``."""
    sign = "+" if signed and value > 0 else ""
    return f"{sign}{value:.3g} [{_bound(low)}, {_bound(high)}]"


def points(change: Limits) -> str:
    """Formats a difference of shares as ``+4 [-1, 9] points``."""
    value, low, high = (100 * part for part in change)
    return f"{number(value, low, high, signed=True)} points"


def mcnemar_words(change: Limits, test: McNemar) -> str:
    """Writes ``McNemar p = 0.031``, and why it decides less than the interval does where it does.

    The interval is the inversion of the score test (:func:`~textkeep.evaluation.paired_difference`), which is McNemar's
    for many discordant items; for few of them the exact test is made, and that one is conservative.
    """
    _, low, high = change
    differ = test.exact and (low > 0 or high < 0) and test.p_value >= LEVEL
    return f"McNemar p = {shown_p(test.p_value)}" + (" (exact, stricter than the interval)" if differ else "")


def _bound(value: float) -> str:
    return f"{value:.3g}" if math.isfinite(value) else ("-∞" if value < 0 else "∞")
