"""The sweep as a picture: losses over alpha, and the frontier between speech and text."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from .drawing import AFTER, BEFORE, GREY, drawing

COLOURS = {"speech_answer_loss": AFTER, "text_answer_loss": GREY, "heldout_text_loss": BEFORE}
NAMES = {"speech_answer_loss": "speech", "text_answer_loss": "text", "heldout_text_loss": "held-out text"}


def plot_interpolation(found: dict[str, Any], path: Path) -> None:
    """Draws ``interpolation.json``.

    Args:
        found: Its content.
        path: Picture to write.
    """
    between = [point for point in found["points"] if not point["reverted"]]
    with drawing(path, 1, 2, (9.0, 3.8)) as axes:
        left, right = axes[0]
        for key, colour in COLOURS.items():
            alphas = [point["alpha"] for point in between]
            values = [point["scores"][key] for point in between]
            left.plot(alphas, [v[0] for v in values], marker="o", markersize=4, color=colour, label=NAMES[key])
            left.fill_between(alphas, [v[1] for v in values], [v[2] for v in values], color=colour, alpha=0.12)
        left.set(xlabel="alpha (0 untouched, 1 tuned)", ylabel="loss, nats a token")
        left.legend(frameon=False)
        for points, style in ((between, "o-"), ([p for p in found["points"] if p["reverted"]], "s")):
            pairs = [
                [point["scores"][key][0] for key in ("heldout_text_loss", "speech_answer_loss")] for point in points
            ]
            right.plot([p[0] for p in pairs], [p[1] for p in pairs], style, color="#333333", markersize=4)
            for point, pair in zip(points, pairs, strict=True):
                right.annotate(point["name"], pair, fontsize=7, xytext=(4, 4), textcoords="offset points")
        right.set(xlabel="held-out text loss, nats a token", ylabel="speech loss, nats a token")
        right.set_title("lower left is better", loc="left", fontsize=9)
