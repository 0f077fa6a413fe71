"""Layer-wise learning rates: the paper's equation 3, its controls, and profiles of depth alone."""

from .control_rates import ControlRates, PermutedRates, ReversedRates, UniformRates
from .depth_rates import ExponentialDepthRates, LinearDepthRates, ListedRates
from .importance_rates import ImportanceRates, importance_multipliers
from .layer_rates import LayerRates

__all__ = [
    "ControlRates",
    "ExponentialDepthRates",
    "ImportanceRates",
    "LayerRates",
    "LinearDepthRates",
    "ListedRates",
    "PermutedRates",
    "ReversedRates",
    "UniformRates",
    "importance_multipliers",
]
