"""How the configurations of the runs differ."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from ...run import Run
from .table import DASH, Table


def config_difference(runs: Sequence[Run]) -> Table | None:
    """Lists the settings in which the runs differ; None for a single run."""
    configs = [flatten(run.config) for run in runs]
    if len(runs) < 2 or not all(configs):
        return None
    keys = list(dict.fromkeys(key for config in configs for key in config))
    rows = [
        [key, *(config.get(key, DASH) for config in configs)]
        for key in keys
        if len({config.get(key) for config in configs}) > 1
    ]
    return Table("Settings that differ", ["setting", *(run.name for run in runs)], rows, "" if rows else "None.")


def flatten(config: Mapping[str, Any], prefix: str = "") -> dict[str, str]:
    """Writes nested settings as dotted names and text; lists stay whole unless they hold mappings."""
    flat: dict[str, str] = {}
    for key, value in config.items():
        name = f"{prefix}{key}"
        if isinstance(value, Mapping):
            flat |= flatten(value, f"{name}.") or {name: "{}"}
        elif isinstance(value, list) and any(isinstance(item, Mapping) for item in value):
            flat |= flatten({str(index): item for index, item in enumerate(value)}, f"{name}.")
        else:
            flat[name] = "" if value is None else str(value)
    return flat
