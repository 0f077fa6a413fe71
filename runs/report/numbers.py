"""How figures are written in a verdict, and at which level it decides."""

from __future__ import annotations

import math

from ...evaluation import McNemar, shown_p

Limits = tuple[float, float, float]
"""A figure with its lower and upper limit."""

LEVEL = 0.05
NATS = (
    "Nats a token: by how much harder a token of the text is to foretell than before, in natural logarithms. At +0.1 "
    "the tokens are on average a tenth less likely (e^-0.1 = 0.90), at +0.69 half as likely."
)
"""What the unit of the first screen means."""
SPLITS = {"val": "validation", "test": "test"}


def percent(value: float, low: float, high: float) -> str:
    """Writes ``20 % [15, 26]``."""
    return f"{100 * value:.3g} % [{_bound(100 * low)}, {_bound(100 * high)}]"


def number(value: float, low: float, high: float, signed: bool = False) -> str:
    """Writes ``0.35 [0.21, 0.5]``."""
    sign = "+" if signed and value > 0 else ""
    return f"{sign}{value:.3g} [{_bound(low)}, {_bound(high)}]"


def points(change: Limits) -> str:
    """Writes ``+4 [-1, 9] points`` for a difference of shares."""
    value, low, high = (100 * part for part in change)
    return f"{number(value, low, high, signed=True)} points"


def mcnemar_words(change: Limits, test: McNemar) -> str:
    """Writes ``McNemar p = 0.031``, and why it decides less than the interval does where it does.

    The interval is the inversion of the score test (:func:`~textkeep.evaluation.paired_difference`), which is McNemar's
    for many discordant items; for few of them the exact test is made, and that one is conservative.
    """
    _, low, high = change
    differ = test.exact and (low > 0 or high < 0) and test.p_value >= LEVEL
    return f"McNemar p = {shown_p(test.p_value)}" + (" (exact: more cautious than the interval)" if differ else "")


def _bound(value: float) -> str:
    return f"{value:.3g}" if math.isfinite(value) else ("-∞" if value < 0 else "∞")
