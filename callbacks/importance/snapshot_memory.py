"""Importance of the untouched LLM, kept on disk: runs that begin with the same weights need not measure it again."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from lightning.pytorch import Trainer
from lightning.pytorch.utilities import rank_zero_info

from ... import importance
from ...foundation.run_names import IMPORTANCE
from ...importance import Snapshot
from ...importance.estimators import OURS
from ..evaluations.score_memory import ScoreMemory, code_of


class SnapshotMemory:
    """Snapshots by what they depend on; a matching one equals a new measurement bit for bit.

    The key is that of :class:`ScoreMemory`, with the probe's batches as the LLM gets them, embedded speech included.
    A snapshot whose files were altered is measured again.

    Args:
        memory: Of the untouched LLM.

    Attributes:
        known: How many were read.
        new: How many were measured.
    """

    def __init__(self, memory: ScoreMemory) -> None:
        self._memory = memory
        self.known = self.new = 0

    @classmethod
    def of_untouched(
        cls, folder: str | None, trainer: Trainer, model: Any, estimators: Sequence[str]
    ) -> SnapshotMemory | None:
        """Returns the memory where one process begins a fit and measures what is ours alone; elsewhere none.

        Args:
            folder: Of the entries; None keeps nothing.
            trainer: Of the fit. Several ranks share a probe out, and none of them sees all of it.
            model: The speech LLM.
            estimators: To be measured; how one from outside scores cannot be known here.
        """
        if trainer.world_size > 1 or not OURS.issuperset(estimators):
            return None
        memory = ScoreMemory.of_untouched(folder, trainer, model)
        return None if memory is None else cls(memory)

    def recall(
        self,
        name: str,
        batches: Sequence[Mapping[str, Any]],
        estimators: Sequence[str],
        options: Mapping[str, Any],
        measure: Callable[[], Snapshot],
    ) -> Snapshot:
        """Returns the snapshot of the same measurement; measures and keeps it if there is none.

        Args:
            name: Of the probe.
            batches: What the LLM is measured on.
            estimators: To be measured.
            options: Fields of :class:`textkeep.importance.ProbeOptions`.
            measure: Measures it.
        """
        asked = ["importance", code_of(importance, SnapshotMemory), name, list(estimators), dict(options), batches]
        folder = self._memory.folder / IMPORTANCE / self._memory.key(asked)
        measured: list[Snapshot] = []

        def keep() -> dict[str, str]:
            measured.append(measure())
            measured[0].save(folder)
            return _digests(folder)

        written = self._memory.recall(asked, keep)
        if not measured and written == _digests(folder):
            self.known += 1
            return Snapshot.load(folder)
        self.new += 1
        return measured[0] if measured else measure()

    def tell(self) -> None:
        """Says how much was known."""
        if self.known:
            parts = f"{self.known} of {self.known + self.new} probes"
            rank_zero_info(f"importance of the untouched LLM: {parts} from {self._memory.folder}")


def _digests(folder: Path) -> dict[str, str]:
    """Returns the SHA-256 of each file of a folder; none of a folder that is not there."""
    return {file.name: hashlib.sha256(file.read_bytes()).hexdigest() for file in sorted(folder.glob("*"))}
