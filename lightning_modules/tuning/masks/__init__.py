"""Masks: single weights that do not move while the rest learns."""

from .importance_mask import ImportanceMask
from .random_mask import RandomMask
from .weight_mask import WeightMask

__all__ = ["ImportanceMask", "RandomMask", "WeightMask"]
