"""States which part of a decoder is scored. Shares refer to that part alone."""

from __future__ import annotations

from collections.abc import Collection, Mapping

MOSTLY = 0.9
"""From this coverage on, shares are presented as those of the whole decoder, without a remark."""


def by_reason(untapped: Mapping[str, str]) -> dict[str, list[str]]:
    """Groups the names of weights that are not scored by the reason.

    Args:
        untapped: Parameter name -> reason, which may end with the shape.
    """
    found: dict[str, list[str]] = {}
    for name, reason in untapped.items():
        found.setdefault(reason.partition(", shape")[0], []).append(name)
    return found


def scored_part(coverage: float, reasons: Collection[str]) -> str:
    """Says ``of the 21 % of the parameters that are scored (not: experts)``; empty if nearly all are.

    Args:
        coverage: Scored parameters over all of the decoder.
        reasons: Why the others are not.
    """
    if coverage >= MOSTLY:
        return ""
    left_out = f" (not: {', '.join(reasons)})" if reasons else ""
    return f"of the {100 * coverage:.2g} % of the decoder's parameters that are scored{left_out}"
