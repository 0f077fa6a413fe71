"""Figures of a validation or test that no callback has printed on its own line."""

from __future__ import annotations

from lightning.pytorch import Trainer

from ...foundation.run_names import stage_key
from ..contract import TellsFigures


def untold(trainer: Trainer, prefix: str) -> dict[str, float]:
    """Returns the figures whose keys begin so, without those that a callback has put into words.

    Args:
        trainer: With the figures that checkpointing may monitor, each by one name.
        prefix: ``val/`` or ``test/``.
    """
    callbacks = trainer.callbacks  # type: ignore[attr-defined]
    told = {key for callback in callbacks if isinstance(callback, TellsFigures) for key in callback.told}
    figures = trainer.callback_metrics.items()
    return {key: float(value) for key, value in figures if key.startswith(prefix) and key not in told}


def shown(figures: dict[str, float]) -> str:
    """Writes figures one after the other."""
    return "  ".join(f"{key} {value:.4g}" for key, value in figures.items())


def of_a_step(key: str) -> bool:
    """Returns whether a figure of the progress bar belongs to the step: not W&B's id or a validation's results."""
    return key != "v_num" and not key.startswith(stage_key("val", ""))
