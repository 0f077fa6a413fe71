"""How the configurations of the runs differ."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from ...run import Run
from .table import DASH, Table

SILENT = frozenset({DASH, "null", "False", "0", "0.0", "{}", "[]", '""'})
"""Values that say nothing where no run has another: not set, empty or off."""
PLACE = "trainer.default_root_dir"


def config_difference(runs: Sequence[Run]) -> Table | None:
    """Lists the settings in which the runs differ; None for a single run.

    Those that are set nowhere to anything, which another class brings with it, and the runs' places are folded away.
    """
    configs = [flatten(run.config) for run in runs]
    if len(runs) < 2 or not all(configs):
        return None
    keys = list(dict.fromkeys(key for config in configs for key in config))
    rows: list[list[str]] = []
    silent: list[list[str]] = []
    for key in keys:
        values = [config.get(key, DASH) for config in configs]
        if len(set(values)) > 1:
            (silent if key == PLACE or SILENT.issuperset(values) else rows).append([key, *values])
    head = ["setting", *(run.name for run in runs)]
    note = "" if rows or silent else "None."
    fold = f"{len(silent)} more: places, and settings that are off"
    return Table("Settings that differ", head, rows, note, silent, fold)


def flatten(config: Mapping[str, Any], prefix: str = "") -> dict[str, str]:
    """Writes nested settings as dotted names and text; lists stay whole unless they hold mappings.

    Callbacks, loggers and the like go by the names of their classes, so that one more moves no other.
    """
    flat: dict[str, str] = {}
    for key, value in config.items():
        name = f"{prefix}{key}"
        if isinstance(value, Mapping):
            flat |= flatten(value, f"{name}.") or {name: "{}"}
        elif isinstance(value, list) and any(isinstance(item, Mapping) for item in value):
            flat |= flatten(dict(zip(_names(value), value, strict=True)), f"{name}.")
        else:
            flat[name] = "null" if value is None else str(value) or '""'
    return flat


def _names(items: Sequence[Any]) -> list[str]:
    """Names the items of a list by their classes where all have different ones, else by their places."""
    paths = [str(item.get("class_path", "")) if isinstance(item, Mapping) else "" for item in items]
    classes = [path.rpartition(".")[2] for path in paths]
    return classes if all(classes) and len(set(classes)) == len(items) else [str(place) for place in range(len(items))]
