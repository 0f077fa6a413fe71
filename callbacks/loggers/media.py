"""Pictures and tables for any logger that a run has: each kind of logger says how it takes them."""

from __future__ import annotations

from collections.abc import Sequence
from functools import singledispatch
from typing import Any

import numpy as np
from lightning.pytorch.loggers import Logger, TensorBoardLogger, WandbLogger

from .csv_logger import RunCSVLogger
from .wandb_logger import ResilientWandbLogger


@singledispatch
def log_picture(logger: Logger, key: str, pixels: np.ndarray, step: int) -> None:
    """Logs a picture; loggers that take none are skipped.

    Args:
        logger: One of ``trainer.loggers``.
        key: Name of the picture.
        pixels: (height, width, 3) RGB, 8 bits.
        step: Optimizer step.
    """


@log_picture.register
def _(logger: WandbLogger, key: str, pixels: np.ndarray, step: int) -> None:
    logger.log_image(key, [pixels], step)


@log_picture.register
def _(logger: TensorBoardLogger, key: str, pixels: np.ndarray, step: int) -> None:
    logger.experiment.add_image(key, pixels, step, dataformats="HWC")


@log_picture.register
def _(logger: RunCSVLogger, key: str, pixels: np.ndarray, step: int) -> None:
    logger.log_picture(key, pixels)


@singledispatch
def log_heat_map_table(logger: Logger, key: str, rows: Sequence[Sequence[Any]], title: str, step: int) -> None:
    """Logs the numbers behind a heat map; a logger without tables is left out: ``summary.jsonl`` has them anyway.

    Args:
        logger: One of ``trainer.loggers``.
        key: Name of the table.
        rows: (step, layer, estimator, share) each.
        title: Of the chart.
        step: Optimizer step.
    """


@log_heat_map_table.register
def _(logger: ResilientWandbLogger, key: str, rows: Sequence[Sequence[Any]], title: str, step: int) -> None:
    logger.log_heat_map_table(key, rows, title, step)
