"""Masks: single weights that stay fixed while the rest trains."""

from .importance_mask import ImportanceMask
from .random_mask import RandomMask
from .weight_mask import WeightMask

__all__ = ["ImportanceMask", "RandomMask", "WeightMask"]
