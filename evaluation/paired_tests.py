"""Whether two conditions differ on the same items, and what remains after correction for many comparisons."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

FEW_DISCORDANT = 25
"""Below this many discordant items, the chi-square approximation of McNemar's test is unreliable."""


class McNemar(NamedTuple):
    """Result of :func:`mcnemar`.

    Attributes:
        lost: Items that were right before and are wrong after.
        gained: Items that were wrong before and are right after.
        p_value: Two-sided.
        exact: Whether it is the exact test's.
    """

    lost: int
    gained: int
    p_value: float
    exact: bool


def mcnemar(before: Sequence[bool], after: Sequence[bool], exact: bool | None = None) -> McNemar:
    """Applies McNemar's test to two classifications of the same items.

    Under the null hypothesis the discordant items fall on either side like a fair coin. With few of them the binomial
    distribution is used (exact, so it never exceeds its level, but conservative), with many the chi-square
    approximation without continuity correction (Fagerland, Lydersen and Laake 2013, BMC Medical Research Methodology
    13:91). The latter rejects just where the interval of :func:`paired_difference` leaves out 0; the exact one
    rejects less often.

    Args:
        before: Correctness of each item under the first condition.
        after: Correctness of the same items, in the same order, under the second.
        exact: Which form to use; None takes the exact one below ``FEW_DISCORDANT`` discordant items.

    Raises:
        ValueError: If the two sequences differ in length.
    """
    from statsmodels.stats.contingency_tables import mcnemar as statsmodels_mcnemar

    if len(before) != len(after):
        raise ValueError(f"mcnemar: paired items expected, got {len(before)} and {len(after)}")
    lost = sum(bool(b) and not a for b, a in zip(before, after, strict=True))
    gained = sum(bool(a) and not b for b, a in zip(before, after, strict=True))
    exact = lost + gained < FEW_DISCORDANT if exact is None else exact
    if not lost + gained:
        return McNemar(0, 0, 1.0, exact)
    # Only the discordant cells enter the test.
    result = statsmodels_mcnemar([[0, lost], [gained, 0]], exact=exact, correction=False)
    return McNemar(lost, gained, min(1.0, float(result.pvalue)), exact)


def shown_p(p: float, floor: float = 0.0) -> str:
    """Formats a p-value: ``0.031``, ``<= 0.0002`` at the smallest one that resampling can give, ``< 0.0001``.

    Args:
        p: The p-value.
        floor: The smallest p that the test can give; 0 for a test without resampling, 1 if no other is possible.
    """
    if 0 < floor < 1 and p <= floor:
        return f"<= {floor:.2g}"
    return "< 0.0001" if p < 1e-4 else f"{p:.2g}"


def holm(p_values: Sequence[float]) -> list[float]:
    """Adjusts p-values by Holm's step-down procedure (Holm 1979), in the given order.

    Comparing the adjusted values with a level controls the family-wise error rate without assuming independence.
    """
    from statsmodels.stats.multitest import multipletests

    if not len(p_values):
        return []
    return [float(p) for p in multipletests(p_values, method="holm")[1]]
