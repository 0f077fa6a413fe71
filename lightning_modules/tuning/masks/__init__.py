"""Masks: single weights that do not move while the rest learns."""

from .importance_mask import ImportanceMask
from .protected_weights import ProtectedWeights
from .random_mask import RandomMask
from .weight_mask import WeightMask

__all__ = ["ImportanceMask", "ProtectedWeights", "RandomMask", "WeightMask"]
