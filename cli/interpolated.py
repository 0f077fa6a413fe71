"""Models between two others, and what they score, as tables."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from .output import print_table

FIGURES = "interpolation.json"

TABLES = (
    ("accuracy", "scores", {"speech": "speech_accuracy", "text": "text_accuracy"}),
    (
        "loss, nats a token",
        "scores",
        {"speech": "speech_answer_loss", "text": "text_answer_loss", "held-out text": "heldout_text_loss"},
    ),
    (
        "loss against alpha=1",
        "against_tuned",
        {"speech": "speech_loss_change", "text": "text_loss_change", "held-out text": "heldout_text_loss_change"},
    ),
)
"""Title, part of a point, and its columns: narrow enough for 80 characters."""


@dataclass(frozen=True)
class Point:
    """A model to score: its share of what was learned, and what is reverted."""

    alpha: float
    reverted: tuple[str, ...] = ()

    @property
    def name(self) -> str:
        """Of its folder and its row."""
        return f"alpha={self.alpha:g}" if not self.reverted else f"reverted={len(self.reverted)}"


def print_points(found: dict[str, Any], questions: str) -> None:
    """Prints the tables of a sweep.

    Args:
        found: Content of ``interpolation.json``.
        questions: What was asked.
    """
    items = found["points"][0]["items"]
    print(f"{items} questions ({questions}), held-out text: {found['heldout']}; with 95 % intervals")
    for title, part, columns in TABLES:
        points = [point for point in found["points"] if point[part]]
        known = {name: key for name, key in columns.items() if any(p[part].get(key) for p in points)}
        rows = [[p["name"], *(_cell(p[part].get(key), key) for key in known.values())] for p in points]
        if known:
            print_table(title, ["model", *known], rows)


def _cell(values: list[float] | None, key: str) -> str:
    if values is None:
        return "-"
    if key.endswith("accuracy"):
        return "{:.0f} % [{:.0f}, {:.0f}]".format(*(100 * value for value in values))
    sign = "+" if key.endswith("change") else ""
    return " ".join([f"{values[0]:{sign}.3f}", f"[{values[1]:{sign}.3f}, {values[2]:{sign}.3f}]"])
