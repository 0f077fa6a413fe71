"""How figures are written in a verdict, and at which level it decides."""

from __future__ import annotations

import math

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


def _bound(value: float) -> str:
    return f"{value:.3g}" if math.isfinite(value) else ("-∞" if value < 0 else "∞")
