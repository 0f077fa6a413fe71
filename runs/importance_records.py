"""What a run measured about importance: summary lines, snapshots, and tests of the scores."""

from __future__ import annotations

import json
from collections.abc import Callable
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar, cast

from ..foundation.run_names import IMPORTANCE, REMOVALS, SUMMARY, VERIFICATION, snapshot_folder
from .measurements import (
    Measurement,
    Removal,
    Verification,
    check_measurement,
    check_removal,
    check_verification,
)
from .notes import Notes

if TYPE_CHECKING:
    from ..importance import Snapshot

SUMMARY_FILE = f"{IMPORTANCE}/{SUMMARY}"
_KEPT_SNAPSHOTS = 4
"""Successive figures need the same ones; all those of a long run would fill the memory."""

Record = TypeVar("Record")


class ImportanceRecords:
    """The importance that a run measured.

    Args:
        run: The run directory.
        notes: Receive what is damaged.

    Attributes:
        measurements: The lines of the summary, by step.
    """

    def __init__(self, run: Path, notes: Notes) -> None:
        self._run, self._notes = run, notes
        self._snapshots: dict[Path, Snapshot | None] = {}
        rows = notes.rows(run, SUMMARY_FILE, check_measurement) if (run / SUMMARY_FILE).exists() else []
        self.measurements = sorted(cast(list[Measurement], rows), key=lambda line: line["step"])

    @property
    def pairs(self) -> list[tuple[str, str]]:
        """Probes with their estimators, in the order in which they were written."""
        return list(dict.fromkeys((line["probe"], line["estimator"]) for line in self.measurements))

    @property
    def probes(self) -> list[str]:
        """Names of the probes."""
        return list(dict.fromkeys(line["probe"] for line in self.measurements))

    @property
    def estimators(self) -> list[str]:
        """Names of the estimators."""
        return list(dict.fromkeys(line["estimator"] for line in self.measurements))

    @property
    def steps(self) -> list[int]:
        """The steps at which anything was measured."""
        return sorted({line["step"] for line in self.measurements})

    def of(self, probe: str, estimator: str) -> list[Measurement]:
        """Returns the measurements of a probe by an estimator, by step."""
        return [line for line in self.measurements if (line["probe"], line["estimator"]) == (probe, estimator)]

    def snapshot(self, probe: str, step: int) -> Snapshot | None:
        """Loads a snapshot, with its row and column sums if they were kept; None if it does not exist (any more)."""
        from ..importance import Snapshot  # it imports torch, which most readers do not need

        folder = snapshot_folder(self._run, probe, step)
        if folder not in self._snapshots:
            if len(self._snapshots) >= _KEPT_SNAPSHOTS:
                self._snapshots.pop(next(iter(self._snapshots)))
            try:
                self._snapshots[folder] = Snapshot.load(folder)
            except (OSError, ValueError, KeyError):
                self._snapshots[folder] = None
        return self._snapshots[folder]

    @cached_property
    def meta(self) -> dict[str, Any]:
        """``meta.json`` of the snapshot that was written last, empty if there is none."""
        files = sorted((self._run / IMPORTANCE).glob("*/step=*/meta.json"), key=lambda path: path.stat().st_mtime)
        found = self._records(files[-1:], lambda record: (record["model"]["class"], record["versions"]), dict[str, Any])
        return found[0] if found else {}

    @cached_property
    def verifications(self) -> list[Verification]:
        """Records of ``textkeep importance verify``, the newest last."""
        folder = self._run / IMPORTANCE / VERIFICATION
        files = sorted(folder.glob("*.json"), key=lambda file: file.stat().st_mtime)
        return self._records(files, check_verification, Verification)

    @cached_property
    def removals(self) -> list[Removal]:
        """Removal tests, by the names of their files."""
        return self._records(sorted((self._run / IMPORTANCE).glob(REMOVALS)), check_removal, Removal)

    def _records(
        self, files: list[Path], check: Callable[[dict[str, Any]], object], kind: type[Record]
    ) -> list[Record]:
        found = []
        for file in files:
            with self._notes.reading(file.relative_to(self._run).as_posix()):
                record = json.loads(file.read_text(encoding="utf-8"))
                check(record)
                found.append(cast(Record, record))
        return found
