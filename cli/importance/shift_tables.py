"""Shifts between two snapshots as tables and JSON."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from ...evaluation import shown_p
from ..output import print_table, say

if TYPE_CHECKING:
    from ...importance import Snapshot
    from ...importance.agreement import Agreement, Ranked
    from ...importance.shift import Shift


@dataclass(frozen=True)
class Shifts:
    """The differences of two snapshots, one per estimator.

    Attributes:
        found: The shifts.
        before: How each estimator agreed with an ablation in the first snapshot, where there is one.
        after: The same in the second.
    """

    found: Sequence[Shift]
    before: Sequence[Agreement | None]
    after: Sequence[Agreement | None]

    @classmethod
    def between(cls, before: Snapshot, after: Snapshot, arguments: argparse.Namespace) -> Shifts:
        """Compares the estimators that both have, or the requested one."""
        from ...importance import compare
        from ...importance.agreement import agreement

        measured = [n for n in before.meta["estimators"] if n in after.estimators]
        names = [arguments.estimator] if arguments.estimator else measured
        return cls(
            [compare(before, after, name, arguments.replicates) for name in names],
            [agreement(before, name, None, arguments.replicates) for name in names],
            [agreement(after, name, before, arguments.replicates) for name in names],
        )

    def as_list(self) -> list[dict[str, Any]]:
        """Returns plain values for JSON."""
        pairs = zip(self.found, self.after, strict=True)
        return [{**shift.as_dict(), **({"causal": seen.as_dict()} if seen else {})} for shift, seen in pairs]

    def show(self) -> None:
        """Prints tables."""
        _print_all(self.found, self.before, self.after)


def _print_all(shifts: Sequence[Shift], before: Sequence[Agreement | None], after: Sequence[Agreement | None]) -> None:
    for shift in shifts:
        _print(shift)
    pairs = [(first, second) for first, second in zip(before, after, strict=True) if first and second]
    if pairs:
        heads = ["estimator", "before", "after", "of the changes of the shares"]
        rows = [
            [second.estimator, ranked(first.now), ranked(second.now), ranked(second.moved)] for first, second in pairs
        ]
        title = f"rank correlation over the layers with {pairs[0][1].ablation}: the real effect of removal"
        print_table(title, heads, rows)


def ranked(found: Ranked | None) -> str:
    """Writes a rank correlation with its interval."""
    if found is None:
        return "-"
    limits = f" [{found.low:.2f}, {found.high:.2f}]" if found.low is not None else ""
    return f"{found.value:.2f}{limits}"


def _print(shift: Shift) -> None:
    title = (
        f"{shift.estimator}: {shift.examples} examples, loss {shift.loss_before:.3f} -> {shift.loss_after:.3f}, "
        f"total x{shift.total_after / max(shift.total_before, 1e-300):.3g}, "
        f"peak {shift.peak_before} -> {shift.peak_after}"
    )
    rows = []
    for name, estimate in shift.metrics.items():
        interval = f"[{estimate.low:.3g}, {estimate.high:.3g}]" if estimate.low is not None else "-"
        null = f"{estimate.null:.3g} (95 %: {estimate.null_p95:.3g})" if estimate.null is not None else "-"
        p = shown_p(estimate.p, shift.p_floor or 0.0) if estimate.p is not None else "-"
        noise, left = ("-" if x is None else f"{x:.3g}" for x in (estimate.expected, estimate.corrected))
        rows.append([name, f"{estimate.value:.4g}", p, noise, left, interval, null])
    if shift.top_overlap is not None:
        chance = f"{shift.top_chance:.3g} by chance"
        rows.append(["top overlap", f"{shift.top_overlap:.3f}", "-", "-", "-", "-", chance])
    heads = ["shift", "value", "paired p", "noise alone", "without it", "90 % interval", "half against half"]
    print_table(title, heads, rows)
    if shift.untested:
        say(f"{shift.untested}; no interval or scale either")
    elif shift.p_floor is not None:
        print(
            f"paired p: before and after exchanged within the {shift.examples} examples, floor {shift.p_floor:.2g}; "
            "noise alone: the mean over these exchanges; the interval is of the shift without it; "
            "half against half: for scale, how far another probe of half the size would differ without training"
        )
