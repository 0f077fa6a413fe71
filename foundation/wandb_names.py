"""Names that W&B runs and the workspace made for them must agree on; cheap to import."""

from __future__ import annotations

STEP_METRIC = "trainer/global_step"
"""The x axis of every metric."""

HEAT_MAP_CHART = "textkeep_heat_map"
"""Name of the Vega preset of an entity; ``textkeep dashboard`` stores it."""

HEAT_MAP_FIELDS = ("step", "layer", "estimator", "share")
"""Columns of the table behind it."""
