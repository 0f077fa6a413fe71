"""The run's metrics as one CSV file in the run directory."""

from __future__ import annotations

import csv
import io
import os
from argparse import Namespace
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from lightning.pytorch.loggers import Logger
from lightning.pytorch.utilities.rank_zero import rank_zero_only
from typing_extensions import override

from ...foundation.files import naming, replacing, sync
from ...foundation.run_names import METRICS, PICTURES

STEP = "step"


class RunCSVLogger(Logger):
    """Writes every logged metric to ``<run>/metrics.csv``, one row per call, one column per name.

    Lightning's ``CSVLogger`` deletes the file that it finds; this one continues it. Rows of steps that a resumed run
    goes through again are dropped, and so is the row of the step it resumes at that is logged again: the file tells one
    history.

    Args:
        save_dir: Folder of the file; the command line sets it to the run directory.
        filename: Name of the file.
        flush_every: Rows held back before they are written. Every save, checkpoint and end of a run writes too.
        forget_later: Drop the rows of later steps: a fit that goes on makes them again. The command line switches it
            off for a test or validation, which may be of an earlier checkpoint than the one before.
    """

    def __init__(
        self,
        save_dir: str | os.PathLike[str] = ".",
        filename: str = METRICS,
        flush_every: int = 10,
        forget_later: bool = True,
    ) -> None:
        super().__init__()
        self._folder = Path(save_dir)
        self._path = self._folder / filename
        self.filename = filename
        self._flush_every = flush_every
        self._forget_later = forget_later
        self._columns: list[str] | None = None
        self._continued_at: int | None = None  # the first step that is logged to a file that was there
        self._waiting: list[dict[str, Any]] = []
        self._written = 0

    @property
    @override
    def name(self) -> str:
        return ""

    @property
    @override
    def version(self) -> str:
        return ""

    @property
    @override
    def save_dir(self) -> str:
        return str(self._folder)

    @property
    @override
    def log_dir(self) -> str:
        return str(self._folder)

    @override
    def log_hyperparams(self, params: dict[str, Any] | Namespace, *args: Any, **kwargs: Any) -> None:
        """Does nothing: ``config.yaml`` lies beside the file."""

    @override
    @rank_zero_only
    def log_metrics(self, metrics: Mapping[str, Any], step: int | None = None) -> None:
        row = {name: value.item() if hasattr(value, "item") else value for name, value in metrics.items()}
        if step is not None:
            row[STEP] = step
        if self._columns is None:
            self._open(row.get(STEP))
        if self._continued_at is not None and row.get(STEP) == self._continued_at:
            self._drop_repeated(row)
        self._waiting.append(row)
        if len(self._waiting) >= self._flush_every:
            self.save()

    @rank_zero_only
    def log_picture(self, key: str, pixels: Any) -> None:
        """Writes ``<run>/pictures/<key>.png`` and replaces the one before.

        Args:
            key: Name of the picture; slashes make folders.
            pixels: (height, width, 3) RGB, 8 bits.
        """
        from PIL import Image

        with replacing(self._folder / PICTURES / f"{key}.png") as temporary:
            Image.fromarray(pixels).save(temporary, format="PNG")

    @override
    @rank_zero_only
    def save(self) -> None:
        """Writes the rows that wait; a new name rewrites the file with a wider header."""
        if not self._waiting or self._columns is None:
            return
        fresh = sorted(set().union(*self._waiting) - set(self._columns))
        if fresh:
            self._columns += fresh
            self._rewrite(self._rows() + self._waiting)
        else:
            with naming(self._path), self._path.open("a", newline="", encoding="utf-8") as file:
                csv.DictWriter(file, self._columns).writerows(self._waiting)
            self._written += len(self._waiting)
        self._waiting = []

    def settle(self) -> int:
        """Writes the rows that wait, and waits until they are on disk: a checkpoint will rely on them.

        Returns:
            Rows so far.
        """
        if self._columns is None:
            self._open(None)
        self.save()
        if self._path.is_file():
            sync(self._path)
        return self._written

    @rank_zero_only
    def keep_first(self, rows: int) -> None:
        """Forgets all but the first rows: a continued fit makes the others again.

        Args:
            rows: As :meth:`settle` gave them there.
        """
        self._open(None)
        if self._written > rows:
            self._rewrite(self._rows()[:rows])

    @override
    @rank_zero_only
    def after_save_checkpoint(self, checkpoint_callback: Any) -> None:
        self.save()

    @override
    @rank_zero_only
    def finalize(self, status: str) -> None:
        self.save()

    def _open(self, first_step: int | None) -> None:
        """Takes over an existing file, without damaged rows and those after the step that is logged first."""
        self._folder.mkdir(parents=True, exist_ok=True)
        rows = self._rows()
        self._columns = list(rows[0]) if rows else [STEP]
        kept = [row for row in rows if self._stays(row, first_step)]
        if len(kept) < len(rows) or not self._ends_whole():
            self._rewrite(kept)
        self._written = len(kept)
        self._continued_at = first_step if kept else None

    def _drop_repeated(self, row: Mapping[str, Any]) -> None:
        """Drops the file's rows of the same step that say nothing more: a validation that is run again has one row."""
        rows = self._rows()
        kept = [old for old in rows if old[STEP] != str(row[STEP]) or {name for name in old if old[name]} - set(row)]
        if len(kept) < len(rows):
            self._rewrite(kept)

    def _stays(self, row: Mapping[str, Any], first_step: int | None) -> bool:
        step = row.get(STEP) or ""
        if None in row or not (step == "" or step.isdecimal()):  # more fields than names, or no number: half a row
            return False
        return first_step is None or not self._forget_later or not step or int(step) <= first_step

    def _ends_whole(self) -> bool:
        """Returns whether the last row was written to its end."""
        return not self._path.is_file() or self._path.read_bytes()[-1:] in (b"", b"\n")

    def _rows(self) -> list[dict[str, Any]]:
        """Reads the rows; a last one that was cut off (a full disk, a machine that went down) does not count."""
        if not self._path.is_file():
            return []
        text = self._path.read_bytes().decode("utf-8", errors="replace").replace("\0", "")
        return list(csv.DictReader(io.StringIO(text[: text.rfind("\n") + 1], newline="")))

    def _rewrite(self, rows: list[dict[str, Any]]) -> None:
        assert self._columns is not None
        with replacing(self._path) as temporary, temporary.open("w", newline="", encoding="utf-8") as file:
            writer = csv.DictWriter(file, self._columns)
            writer.writeheader()
            writer.writerows(rows)
        self._written = len(rows)
