"""Layer-wise learning rates: the paper's equation 3, its controls, and profiles of depth alone."""

from .control_rates import PermutedRates, ReversedRates, UniformRates
from .depth_rates import ExponentialDepthRates, LinearDepthRates, ListedRates
from .importance_rates import ImportanceRates
from .layer_rates import LayerRates

__all__ = [
    "ExponentialDepthRates",
    "ImportanceRates",
    "LayerRates",
    "LinearDepthRates",
    "ListedRates",
    "PermutedRates",
    "ReversedRates",
    "UniformRates",
]
