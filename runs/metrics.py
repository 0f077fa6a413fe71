"""``metrics.csv`` of a run, read as it grows."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterator, Mapping
from pathlib import Path

Points = list[tuple[int, float]]
"""(step, value), in the order in which they were logged."""

_STEP = "step"


class Metrics(Mapping[str, Points]):
    """The logged numbers by name: ``metrics["train/loss"]`` is a list of (step, value).

    Args:
        path: The file, which need not exist yet.

    Attributes:
        columns: Names of all columns, including those without a number.
        last_step: The last step in the file; 0 without one.
        damaged: Number of lines that were not numbers.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.columns: tuple[str, ...] = ()
        self._begin(0)

    def __getitem__(self, name: str) -> Points:
        return self._values[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._values)

    def __len__(self) -> int:
        return len(self._values)

    def last(self, name: str) -> float | None:
        """Returns the last value of a metric; None if it was never logged."""
        points = self._values.get(name)
        return points[-1][1] if points else None

    def read(self) -> None:
        """Reads the lines that were added; one that is still being written waits for the next call.

        A file that was replaced or has become shorter is read from the start: the logger rewrites it when a column is
        added.

        Raises:
            OSError: If it cannot be read.
        """
        if not self.path.is_file():
            return
        with self.path.open("rb") as file:
            if self.path.stat().st_ino != self._inode or self.path.stat().st_size < self._offset:
                self._begin(self.path.stat().st_ino)
            file.seek(self._offset)
            whole = file.read()
        whole = whole[: whole.rfind(b"\n") + 1]
        self._offset += len(whole)
        for cells in csv.reader(io.StringIO(whole.decode("utf-8", "replace"))):
            if self.columns:
                self._take(dict(zip(self.columns, cells, strict=False)))
            else:
                self.columns = tuple(cells)

    def _begin(self, inode: int) -> None:
        self._inode, self._offset = inode, 0
        self._values: dict[str, Points] = {}
        self.columns = ()
        self.last_step, self.damaged = 0, 0

    def _take(self, row: dict[str, str]) -> None:
        try:
            step = int(float(row[_STEP]))
            numbers = {name: float(text) for name, text in row.items() if text and name != _STEP}
        except (KeyError, ValueError):
            self.damaged += 1
            return
        self.last_step = max(self.last_step, step)
        for name, value in numbers.items():
            self._values.setdefault(name, []).append((step, value))
