"""The heat map of a run, pixel by pixel."""

from __future__ import annotations

import numpy as np
import pytest
from matplotlib import colormaps

from textkeep.importance.picture import FOOTER, HEADER, MARGIN, PANEL, heat_map


def test_every_cell_has_the_colour_of_its_share() -> None:
    shares = [[0.1, 0.2, 0.7], [0.3, 0.3, 0.4]]  # two measurements of three layers
    pixels = heat_map({"taylor": shares}, [0, 50])
    tall, wide = PANEL // 3, PANEL // 2
    assert pixels.dtype == np.uint8
    assert pixels.shape == (HEADER + 3 * tall + FOOTER, MARGIN + PANEL, 3)
    for column, row in enumerate(shares):
        for layer, share in enumerate(row):
            y = HEADER + (2 - layer) * tall + tall // 2  # layer 0 is at the bottom
            x = MARGIN + column * wide + wide // 2
            expected = 255 * np.array(colormaps["cividis"](round(255 * share / 0.7))[:3])
            np.testing.assert_allclose(pixels[y, x], expected, atol=1)


def test_estimators_stand_side_by_side_and_long_runs_fit() -> None:
    flat = np.full((1000, 32), 1 / 32)
    pixels = heat_map({"taylor": flat, "fisher": flat}, list(range(1000)))
    assert pixels.shape[1] == 2 * (MARGIN + 1000)
    assert len(np.unique(pixels[HEADER + 5, MARGIN : MARGIN + 1000], axis=0)) == 1


def test_zeros_do_not_divide() -> None:
    assert heat_map({"taylor": [[0.0, 0.0]]}, [0]).max() == 255


def test_nothing_measured_is_refused() -> None:
    with pytest.raises(ValueError, match="at least one measurement"):
        heat_map({}, [])
