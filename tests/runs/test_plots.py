"""The pictures of a comparison and of a sweep have the intervals that their tables have."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.support.report_run import KINDS, made_snapshot
from textkeep.importance import Matrix, compare
from textkeep.runs.pictures import interpolation, measurements
from textkeep.runs.pictures.drawing import drawing


@pytest.fixture
def drawn(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """The axes of each picture, by picture."""
    kept: list[Any] = []

    @contextmanager
    def kept_drawing(*arguments: Any) -> Iterator[Any]:
        with drawing(*arguments) as axes:
            yield axes
            kept.append(axes)

    for module in (interpolation, measurements):
        monkeypatch.setattr(module, "drawing", kept_drawing)
    return kept


def inside(figure: Any) -> bool:
    """Whether all that is written lies within the picture."""
    figure.set_dpi(130)  # at which it was saved: a text keeps its extent
    figure.canvas.draw()
    width, height = figure.canvas.get_width_height()
    texts = [text for axis in figure.axes for text in (*axis.texts, axis.title, axis._left_title) if text.get_text()]
    texts += [] if figure._suptitle is None else [figure._suptitle]
    boxes = [text.get_window_extent() for text in texts]
    leading = 5  # pixels: a box of several lines is taller than its letters
    return all(min(box.x0, box.y0) >= 0 and box.x1 <= width and box.y1 <= height + leading for box in boxes)


def test_a_comparison_shows_each_layers_interval(drawn: list[Any], tmp_path: Path) -> None:
    table = [Matrix(f"model.layers.{i}.{kind}", (8, 8), i, kind) for i in range(4) for kind in KINDS]
    profile = np.linspace(1, 2, len(table))
    before, after = (made_snapshot(table, p, step, "p", 4, 0) for step, p in ((0, profile), (9, profile**2)))
    shifts = [compare(before, after, name, replicates=50, draws=99) for name in ("taylor", "fisher")]
    names = "Qwen/Qwen2.5-3B-Instruct", "Qwen/Qwen2.5-Omni-3B"
    for shown in (shifts[:1], shifts):
        title = f"Importance of the weights for plain-text/evaluation: {names[0]} and {names[1]}\n32 examples"
        measurements.plot_comparison(before, after, shown, tmp_path / "named.png", title=title, names=names)
        found = drawn.pop()[0, 0]
        assert inside(found.figure)
        assert found.figure._suptitle.get_text().replace("\n", " ") == title.replace("\n", " ")
        assert [text.get_text() for text in found.get_legend().get_texts()] == list(names)
    measurements.plot_comparison(before, after, shifts, tmp_path / "c.png")
    (axes,) = drawn
    assert inside(axes[0, 0].figure)
    assert [text.get_text() for text in axes[0, 0].get_legend().get_texts()] == ["before, step 0", "after, step 9"]
    for upper, lower, shift in zip(axes[0], axes[1], shifts, strict=True):
        ratios = list(shift.layers.values())
        np.testing.assert_allclose(lower.lines[0].get_ydata(), [ratio.value for ratio in ratios])
        limits = [segment[:, 1].tolist() for segment in lower.collections[0].get_segments()]
        assert limits == [[ratio.low, ratio.high] for ratio in ratios]
        js = shift.metrics["js"]
        assert f"[{js.low:.2g}, {js.high:.2g}]" in upper.get_title("left")


def test_a_comparison_without_examples_says_so(drawn: list[Any], tmp_path: Path) -> None:
    table = [Matrix(f"model.layers.{i}.q", (8, 8), i, "q") for i in range(3)]
    before, after = (made_snapshot(table, np.ones(3) + step, step, "p", 3, 0) for step in (0, 1))
    measurements.plot_comparison(before, after, [compare(before, after, "taylor", replicates=0)], tmp_path / "c.png")
    assert drawn[0][1, 0].get_title("left") == "1: unchanged; no interval"


def test_a_sweep_shows_both_intervals_and_every_name(drawn: list[Any], tmp_path: Path) -> None:
    def point(alpha: float, name: str = "", reverted: tuple[str, ...] = ()) -> dict[str, Any]:
        keys = {"speech_answer_loss": 4 - 3 * alpha, "text_answer_loss": 1.0, "heldout_text_loss": 2 + alpha**2}
        scores = {key: [value, value - 0.1, value + 0.3] for key, value in keys.items()}
        return {"name": name or f"alpha {alpha:g}", "alpha": alpha, "reverted": reverted, "scores": scores}

    points = [point(0.0), point(0.5), point(1.0), point(0.9, "alpha 1, the 5 largest culprits put back", ("x",))]
    interpolation.plot_interpolation({"points": points}, tmp_path / "i.png")
    frontier = drawn[0][0, 1]
    assert inside(frontier.figure)
    assert {text.get_text() for text in frontier.texts} == {p["name"] for p in points}
    across, upright = frontier.containers[0].lines[2]
    for bars, key, axis in ((across, "heldout_text_loss", 0), (upright, "speech_answer_loss", 1)):
        limits = [(segment[0][axis], segment[1][axis]) for segment in bars.get_segments()]
        np.testing.assert_allclose(limits, [p["scores"][key][1:] for p in points[:3]])
