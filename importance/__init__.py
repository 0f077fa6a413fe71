"""Parameter importance: exact per-example scores of a causal LM's weights, snapshots of them, and how they shift."""

from .estimators import DEFAULT_ESTIMATORS, ESTIMATORS, BlockScore, Finish, ForwardScore, Spec, register
from .finite import NotFiniteError
from .measurement import probe
from .metrics import METRICS
from .options import ProbeOptions
from .shift import Estimate, Shift, compare
from .snapshot import Snapshot
from .snapshot_data import Matrix
from .state import undisturbed

__all__ = [
    "DEFAULT_ESTIMATORS",
    "ESTIMATORS",
    "METRICS",
    "BlockScore",
    "Estimate",
    "Finish",
    "ForwardScore",
    "Matrix",
    "NotFiniteError",
    "ProbeOptions",
    "Shift",
    "Snapshot",
    "Spec",
    "compare",
    "probe",
    "register",
    "undisturbed",
]
