"""Tuning strategies: what moves while speech is learned, and how fast."""

from .adaptor_only import AdaptorOnly
from .full_fine_tuning import FullFineTuning
from .importance_user import ImportanceRequest, ImportanceUser
from .rates import LayerRates
from .tuning import ParameterGroup, Tuning

__all__ = [
    "AdaptorOnly",
    "FullFineTuning",
    "ImportanceRequest",
    "ImportanceUser",
    "LayerRates",
    "ParameterGroup",
    "Tuning",
]
