"""How a run is asked to stop, and how its ranks stop together between two steps."""

from __future__ import annotations

from ...foundation.lazy_exports import from_modules

_PUBLIC = {"GracefulStop": "graceful_stop"}

__all__ = sorted(_PUBLIC)
__getattr__ = from_modules(__name__, _PUBLIC)
