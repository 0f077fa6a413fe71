"""The heat map of layer by measurement as pixels, cheap enough to draw at every measurement of a run."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cache
from typing import Any

import numpy as np

PANEL = 360  # pixels of a panel's map, about; cells are whole pixels
MARGIN = 34  # left of a panel, for the layers
HEADER, FOOTER = 22, 20
INK = (70, 74, 82)


def heat_map(shares: Mapping[str, Sequence[Sequence[float]]], steps: Sequence[int]) -> np.ndarray:
    """Draws a panel for each estimator: measurements from left to right, layers from the bottom (0) upwards.

    Args:
        shares: Estimator -> the layers' shares (S, L) of S measurements.
        steps: The S steps.

    Returns:
        (height, width, 3) RGB, 8 bits. Each panel's colours go from 0 to its own maximum, which its title states.

    Raises:
        ValueError: If nothing was measured.
    """
    if not shares or not len(steps):
        raise ValueError("importance: a heat map needs at least one measurement")
    return np.concatenate([_panel(name, np.asarray(rows).T, steps) for name, rows in shares.items()], axis=1)


def _panel(name: str, values: np.ndarray, steps: Sequence[int]) -> np.ndarray:
    """Draws one estimator; ``values`` (L, S)."""
    from PIL import Image, ImageDraw

    layers, columns = values.shape
    tall, wide = max(2, PANEL // layers), max(1, PANEL // columns)
    top = float(values.max()) or 1.0
    cells = _colours()[np.round(255 * np.clip(values[::-1] / top, 0.0, 1.0)).astype(int)]
    cells = cells.repeat(tall, axis=0).repeat(wide, axis=1)
    height, width = layers * tall, columns * wide
    canvas = np.full((HEADER + height + FOOTER, MARGIN + max(width, PANEL), 3), 255, np.uint8)
    canvas[HEADER : HEADER + height, MARGIN : MARGIN + width] = cells
    image = Image.fromarray(canvas)
    pen = ImageDraw.Draw(image)
    pen.text((MARGIN, 5), f"{name}: 0 to {100 * top:.3g} %", fill=INK, font=_font())
    for layer in sorted({0, layers // 2, layers - 1}):
        middle = HEADER + height - (layer + 0.5) * tall
        pen.text((MARGIN - 6, middle), str(layer), fill=INK, font=_font(), anchor="rm")
    below = HEADER + height + 4
    pen.text((MARGIN, below), f"step {steps[0]}", fill=INK, font=_font())
    if columns > 1:
        pen.text((MARGIN + width, below), str(steps[-1]), fill=INK, font=_font(), anchor="ra")
    return np.asarray(image)


@cache
def _colours() -> np.ndarray:
    """Returns the colours of Cividis (256, 3), which colour-blind readers see as others do (Nuñez et al. 2018)."""
    from matplotlib import colormaps

    return (255 * colormaps["cividis"](np.arange(256))[:, :3]).round().astype(np.uint8)


@cache
def _font() -> Any:
    from PIL import ImageFont

    return ImageFont.load_default(12)
