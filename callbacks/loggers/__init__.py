"""Loggers, and what is sent to them."""

from __future__ import annotations

from ...foundation.lazy_exports import from_modules

_PUBLIC = {
    "ResilientWandbLogger": "wandb_logger",
    "RunCSVLogger": "csv_logger",
}

__all__ = sorted(_PUBLIC)
__getattr__ = from_modules(__name__, _PUBLIC)
