"""Parameter importance: exact per-example scores of a causal LM's weights, snapshots of them, and how they shift."""

from .estimators import DEFAULT_ESTIMATORS, ESTIMATORS
from .finite import NotFiniteError
from .metrics import METRICS
from .options import ProbeOptions
from .probe import probe
from .shift import Estimate, Shift, compare
from .snapshot import Matrix, Snapshot
from .state import undisturbed

__all__ = [
    "DEFAULT_ESTIMATORS",
    "ESTIMATORS",
    "METRICS",
    "Estimate",
    "Matrix",
    "NotFiniteError",
    "ProbeOptions",
    "Shift",
    "Snapshot",
    "compare",
    "probe",
    "undisturbed",
]
