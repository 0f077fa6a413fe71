"""Compares two run directories bit by bit."""

from __future__ import annotations

import csv
import json
import math
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open

from textkeep.foundation.run_names import IMPORTANCE, METRICS, WANDB, newest_checkpoint

TIMES = {"seconds", "seconds_per_step", "created"}
"""Keys of durations and times, which differ between any two runs."""
TALLIES = {"zero_grad"}
"""Keys of counters that have no effect."""
BEFORE = {"passing"}
"""Keys that name the previous checkpoint: a stop may have saved another one."""


@dataclass
class Comparison:
    """What two runs have in common, and what differs.

    Attributes:
        compared: Number of values compared, by kind.
        differences: Lines about what differs, by kind.
    """

    compared: Counter[str] = field(default_factory=Counter)
    differences: dict[str, list[str]] = field(default_factory=dict)

    @property
    def equal(self) -> bool:
        """Whether nothing differs."""
        return not any(self.differences.values())

    def values(self, kind: str, name: str, ours: Any, theirs: Any) -> None:
        """Compares two nested values and records each leaf that is not identical bit for bit."""
        for place, left, right in _leaves(name, ours, theirs):
            self.compared[kind] += left.numel() if isinstance(left, torch.Tensor) else 1
            if not _same(left, right):
                self.note(kind, f"{place}: {_shown(left)} != {_shown(right)}")

    def note(self, kind: str, line: str) -> None:
        """Records a difference."""
        self.differences.setdefault(kind, []).append(line)

    def table(self) -> str:
        """Returns a line per kind: values compared, differences."""
        kinds = sorted({*self.compared, *self.differences})
        rows = [(kind, self.compared[kind], len(self.differences.get(kind, []))) for kind in kinds]
        head = f"{'':24}{'compared':>12}{'differ':>10}"
        return "\n".join([head, *(f"{kind:24}{count:12d}{wrong:10d}" for kind, count, wrong in rows)])


def compare_runs(reference: Path, other: Path, ordered: bool = True) -> Comparison:
    """Compares everything that two runs left in their directories, except times and their own paths.

    Args:
        reference: Directory of the undisturbed run.
        other: Directory of the run to compare with it.
        ordered: Whether rows must be in the same order: a measurement that yielded to a stop is repeated after the row
            that it preceded.
    """
    found = Comparison()
    _compare_files(found, reference, other)
    _compare_checkpoints(found, reference, other)
    _compare_metrics(found, _rows(reference / METRICS), _rows(other / METRICS), ordered)
    for path in _files(reference) & _files(other):
        kind = "importance" if path.parts[0] == IMPORTANCE else path.parts[0]
        ours, theirs = reference / path, other / path
        if path.suffix == ".jsonl":
            found.values(kind, str(path), _json_lines(ours), _json_lines(theirs))
        elif path.suffix == ".json":
            found.values(kind, str(path), json.loads(ours.read_text()), json.loads(theirs.read_text()))
        elif path.suffix == ".safetensors":
            found.values("snapshots", str(path), _tensors(ours), _tensors(theirs))
    return found


def _files(directory: Path) -> set[Path]:
    """Lists the files of a run, including links; W&B's internal files have their own names."""
    paths = (path.relative_to(directory) for path in directory.rglob("*") if path.is_file() or path.is_symlink())
    return {path for path in paths if path.parts[0] != WANDB}


def _compare_files(found: Comparison, reference: Path, other: Path) -> None:
    ours, theirs = _files(reference), _files(other)
    found.compared["files"] += len(ours | theirs)
    for path in sorted(ours ^ theirs):
        found.note("files", f"{'missing' if path in ours else 'left over'}: {path}")


def _compare_checkpoints(found: Comparison, reference: Path, other: Path) -> None:
    paths = [newest_checkpoint(run) for run in (reference, other)]
    if None in paths:
        found.note("weights", f"no checkpoint in {(reference, other)[paths.index(None)]}")
        return
    left, right = (torch.load(str(path), map_location="cpu", weights_only=True) for path in paths)
    kinds = {"state_dict": "weights", "optimizer_states": "optimizer", "lr_schedulers": "schedule", "loops": "counters"}
    for key in sorted({*left, *right}):
        kind = kinds.get(key, "checkpoint")
        ours, theirs = _without(left.get(key), reference), _without(right.get(key), other)
        found.values(kind, key, ours, theirs)


def _compare_metrics(
    found: Comparison, ours: list[dict[str, str]], theirs: list[dict[str, str]], ordered: bool
) -> None:
    """Compares the rows with their columns: none may be missing, duplicated or misplaced."""
    found.compared["metric rows"] += len(ours)
    found.compared["metric values"] += sum(len(row) for row in ours)
    left, right = (Counter(json.dumps(row, sort_keys=True) for row in rows) for rows in (ours, theirs))
    for row, count in (left - right).items():
        found.note("metric rows", f"missing{'' if count == 1 else f' {count} times'}: {row}")
    for row, count in (right - left).items():
        word = "doubled" if row in left else "other"
        found.note("metric rows", f"{word}{'' if count == 1 else f' {count} times'}: {row}")
    if ordered and left == right and ours != theirs:
        place = next(i for i, (a, b) in enumerate(zip(ours, theirs, strict=True)) if a != b)
        found.note("order of rows", f"from row {place + 1} on: {ours[place]} and not {theirs[place]}")


def _rows(path: Path) -> list[dict[str, str]]:
    """Reads the rows of metrics.csv, each with the columns that it fills."""
    if not path.is_file():
        return []
    with path.open(newline="", encoding="utf-8") as file:
        return [{str(k): v for k, v in row.items() if v} for row in csv.DictReader(file)]


def _json_lines(path: Path) -> list[Any]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def _tensors(path: Path) -> dict[str, torch.Tensor]:
    with safe_open(path, "pt") as file:
        return {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - no mapping


def _without(value: Any, directory: Path) -> Any:
    """Replaces the run's location, and counts the results."""
    if isinstance(value, Mapping):
        kept = {key: item for key, item in value.items() if key not in TALLIES | BEFORE}
        return {_without(str(key), directory): _without(item, directory) for key, item in kept.items()}
    if isinstance(value, list | tuple):
        return [_without(item, directory) for item in value]
    return value.replace(str(directory), "") if isinstance(value, str) else value


def _leaves(name: str, ours: Any, theirs: Any) -> Iterator[tuple[str, Any, Any]]:
    """Walks through two nested values in parallel."""
    if isinstance(ours, Mapping) and isinstance(theirs, Mapping):
        for key in [*ours, *(key for key in theirs if key not in ours)]:
            if key not in TIMES:
                yield from _leaves(f"{name}.{key}", ours.get(key), theirs.get(key))
    elif isinstance(ours, list | tuple) and isinstance(theirs, list | tuple):
        if len(ours) != len(theirs):
            yield f"length of {name}", len(ours), len(theirs)
        for number, (left, right) in enumerate(zip(ours, theirs, strict=False)):
            yield from _leaves(f"{name}[{number}]", left, right)
    else:
        yield name, ours, theirs


def _same(left: Any, right: Any) -> bool:
    if isinstance(left, torch.Tensor) and isinstance(right, torch.Tensor):
        return left.dtype == right.dtype and left.shape == right.shape and _bytes(left) == _bytes(right)
    if isinstance(left, float) and isinstance(right, float) and math.isnan(left):
        return math.isnan(right)
    return type(left) is type(right) and bool(left == right)


def _bytes(tensor: torch.Tensor) -> bytes:
    return bytes(tensor.detach().contiguous().reshape(-1).view(torch.uint8).numpy().tobytes())


def _shown(value: Any) -> str:
    text = f"tensor {list(value.shape)}" if isinstance(value, torch.Tensor) else repr(value)
    return text if len(text) <= 80 else f"{text[:77]}..."
