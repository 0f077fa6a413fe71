"""The sweep as a picture: losses over alpha, and the frontier between speech and text."""

from __future__ import annotations

from collections.abc import Sequence
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
    first = found["points"][0]["scores"]
    hears = "speech_answer_loss" in first
    with drawing(path, 1, 1 + hears, (4.5 * (1 + hears), 3.8)) as axes:
        left = axes[0, 0]
        for key, colour in COLOURS.items():
            if key not in first:
                continue
            alphas = [point["alpha"] for point in between]
            values = [point["scores"][key] for point in between]
            left.plot(alphas, [v[0] for v in values], marker="o", markersize=4, color=colour, label=NAMES[key])
            left.fill_between(alphas, [v[1] for v in values], [v[2] for v in values], color=colour, alpha=0.12)
        left.set_title("bands: 95 %", loc="left", fontsize=9)
        left.set(xlabel="alpha (0 untouched, 1 tuned)", ylabel="loss, nats a token")
        left.legend(frameon=False)
        if not hears:
            return
        right = axes[0, 1]
        losses = [point["scores"]["heldout_text_loss"][0] for point in found["points"]]
        for points, style in ((between, "o-"), ([p for p in found["points"] if p["reverted"]], "s")):
            _frontier(right, points, style, (min(losses) + max(losses)) / 2)
        right.margins(0.18)  # room for the names
        right.set(xlabel="held-out text loss, nats a token", ylabel="speech loss, nats a token")
        right.set_title("lower left is better; bars: 95 %", loc="left", fontsize=9)


def _frontier(axis: Any, points: Sequence[dict[str, Any]], style: str, middle: float) -> None:
    """Draws models by their two losses, with both intervals; names are placed towards the middle."""
    pairs = [[point["scores"][key] for key in ("heldout_text_loss", "speech_answer_loss")] for point in points]
    if not pairs:
        return
    text, speech = ([pair[side] for pair in pairs] for side in (0, 1))
    axis.errorbar(
        [value[0] for value in text],
        [value[0] for value in speech],
        xerr=_arms(text),
        yerr=_arms(speech),
        fmt=style,
        color="#333333",
        ecolor="#aaaaaa",
        elinewidth=0.8,
        markersize=4,
    )
    for point, (one, other) in zip(points, pairs, strict=True):
        left = one[0] > middle
        axis.annotate(
            point["name"],
            (one[0], other[0]),
            xytext=(-5, -10) if left else (5, 5),
            textcoords="offset points",
            ha="right" if left else "left",
            fontsize=7,
        )


def _arms(values: Sequence[Sequence[float]]) -> list[list[float]]:
    """Returns the lengths of error bars, below and above, of (value, low, high)."""
    return [[max(0.0, v[0] - v[1]) for v in values], [max(0.0, v[2] - v[0]) for v in values]]
