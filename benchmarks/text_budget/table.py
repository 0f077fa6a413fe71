"""The rows of the benchmark as a table, and what they show for each budget."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

Row = dict[str, Any]


def table(rows: Sequence[Row]) -> str:
    """Formats the rows as a Markdown table, grouped by kind of arm, and a sentence for each budget.

    Increases in nats a token, with 95 % intervals over passages; S2T is the share of spoken questions answered right.
    """
    lines = [
        "| arm | seed | increase, watched | increase, held out | verdict | S2T, % | speech loss | weight, alpha |",
        "| --- | --- | --- | --- | --- | --- | --- | --- |",
    ]
    shown = sorted((row for row in rows if "error" not in row), key=lambda row: (row["kind"], row["seed"]))
    lines += [f"| {' | '.join(_cells(row))} |" for row in shown]
    failed = [f"{row['arm']}: {row['error']}" for row in rows if "error" in row]
    return "\n".join([*lines, "", *verdicts(shown), *failed])


def verdict(row: Row) -> str:
    """Says whether a budget holds on held-out text: by the estimate, within the interval, or not."""
    if row["budget"] is None:
        return "-"
    estimate, low, _ = row["heldout"]
    return "holds" if estimate <= row["budget"] else "holds within the interval" if low <= row["budget"] else "not"


def verdicts(rows: Sequence[Row]) -> list[str]:
    """Says in a sentence for each kind of arm with a budget in how many seeds it holds."""
    said = []
    for kind in dict.fromkeys(row["kind"] for row in rows if row["budget"] is not None):
        found = [verdict(row) for row in rows if row["kind"] == kind]
        inside = sum(word != "not" for word in found)
        said.append(
            f"{kind}: holds on held-out text in {inside} of {len(found)} seeds, in {found.count('holds')} of them by "
            "the estimate"
        )
    return said


def _cells(row: Row) -> list[str]:
    increases = ["{:+.3f} [{:+.3f}, {:+.3f}]".format(*row[place]) for place in ("watched", "heldout")]
    accuracy = "{:.0f} [{:.0f}, {:.0f}]".format(*(100 * part for part in row["speech_accuracy"]))
    loss = "{:.2f} [{:.2f}, {:.2f}]".format(*row["speech_loss"])
    weight = row["last_weight"] if row["last_weight"] is not None else row["weight"]
    ended = ", ".join("-" if value is None else f"{value:.3g}" for value in (weight, row["alpha"]))
    return [row["kind"], str(row["seed"]), *increases, verdict(row), accuracy, loss, ended]
