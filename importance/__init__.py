"""Parameter importance: exact per-example scores of a causal LM's weights, snapshots of them, and how they shift."""

from .estimators import DEFAULT_ESTIMATORS, ESTIMATORS
from .probe import ProbeOptions, probe
from .snapshot import Matrix, Snapshot
from .state import undisturbed

__all__ = ["DEFAULT_ESTIMATORS", "ESTIMATORS", "Matrix", "ProbeOptions", "Snapshot", "probe", "undisturbed"]
