"""Parts of a tuning strategy that need importance scores, from a snapshot on disk or measured for them."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from ...importance import ESTIMATORS, Snapshot


@dataclass(frozen=True)
class ImportanceRequest:
    """A measurement of the LLM at the start of the fit.

    Attributes:
        probe: Name of a probe of the data module.
        estimator: One of :data:`textkeep.importance.ESTIMATORS`.
        every_n_steps: Measure again every this many optimizer steps; 0 measures only at the start.
        options: Of :func:`textkeep.importance.probe`.
    """

    probe: str
    estimator: str
    every_n_steps: int = 0
    options: dict[str, Any] = field(default_factory=dict)


class ImportanceUser:
    """Something that may request a measurement. By default it requests nothing and keeps nothing.

    The callback ``TuningImportance`` responds: it decides when, measures, and passes the snapshot to :meth:`use`,
    identically on all ranks.
    """

    @property
    def request(self) -> ImportanceRequest | None:
        """Says what must be measured; ``None`` if all is known."""
        return None

    @property
    def waiting(self) -> bool:
        """Returns whether the measurement that it requests is still outstanding."""
        return False

    def use(self, snapshot: Snapshot) -> None:
        """Receives a measurement that it requested."""
        raise TypeError(f"{type(self).__name__} asked for no measurement")

    def describe(self, layers: int) -> str:
        """Describes what it derives from the measurement, in a few words for the terminal.

        Args:
            layers: Number of decoder layers of the LLM.
        """
        return ""

    def state_dict(self) -> dict[str, Any]:
        """Returns the state for a checkpoint, as plain values and tensors: a resumed run keeps the same importance."""
        return {}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restores what :meth:`state_dict` returned."""


def check_origin(owner: str, snapshot: str | None, probe: str | None, estimator: str) -> None:
    """Refuses settings that do not specify where the importance comes from.

    Args:
        owner: Name of the class, for the message.
        snapshot: Folder of a snapshot, or ``None``.
        probe: Name of a probe to measure on, or ``None``.
        estimator: Name of the estimator.

    Raises:
        ValueError: Unless exactly one of the two is given and the estimator is known.
    """
    if (snapshot is None) == (probe is None):
        raise ValueError(
            f"{owner}: give either a snapshot (a folder importance/PROBE/step=000000 of a run) or a probe to measure "
            f"on (a name in data.probes), got {'both' if probe else 'neither'}"
        )
    if estimator not in ESTIMATORS:
        raise ValueError(f"{owner}: estimator {estimator!r} is unknown; allowed: {', '.join(ESTIMATORS)}")


def read_snapshot(owner: str, folder: str, estimator: str) -> Snapshot:
    """Reads a snapshot and checks that it holds an estimator.

    Raises:
        FileNotFoundError: If there is no snapshot.
        ValueError: If it lacks the estimator; the message lists those it has.
    """
    snapshot = Snapshot.load(folder)
    if estimator not in snapshot.estimators:
        have = ", ".join(snapshot.estimators)
        raise ValueError(f"{owner}: the snapshot {folder} has no {estimator!r}; it has {have}")
    return snapshot
