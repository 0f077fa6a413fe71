"""What is missing or damaged in a run directory, one line per file."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import yaml

from ..foundation.json_lines import json_objects
from ..foundation.text_lines import BadLineError

_DAMAGE = (OSError, ValueError, KeyError, TypeError, AttributeError, yaml.YAMLError)


class Notes:
    """Collects remarks by file; a file that is read again keeps only the remarks of its last reading."""

    def __init__(self) -> None:
        self._by_file: dict[str, str] = {}

    def __iter__(self) -> Iterator[str]:
        return iter(self._by_file.values())

    def put(self, name: str, remark: str) -> None:
        """Keeps the remark about a file.

        Args:
            name: The file, relative to the run directory.
            remark: The text after its name.
        """
        self._by_file[name] = f"{name}{remark}"

    @contextmanager
    def reading(self, name: str) -> Iterator[None]:
        """Turns any error from a damaged file into a remark.

        Args:
            name: The file, relative to the run directory.
        """
        self._by_file.pop(name, None)
        try:
            yield
        except _DAMAGE as error:
            self.put(name, f" could not be read ({_in_one_line(error)})")

    def rows(self, folder: Path, name: str, check: Callable[[dict[str, Any]], object]) -> list[dict[str, Any]]:
        """Reads the JSON objects of a file, one per line; damaged lines are left out and noted.

        Args:
            folder: The run directory.
            name: The file, relative to it.
            check: Accesses what others rely on; a line for which it raises is damaged.
        """
        damage: list[str] = []
        found = []
        with self.reading(name):
            for number, row in json_objects(folder / name, lambda error: damage.append(_in_one_line(error))):
                try:
                    check(row)
                    found.append(row)
                except _DAMAGE as error:
                    damage.append(f"{name}:{number}: {type(error).__name__}: {_in_one_line(error)}")
        if damage:
            lines = "1 line" if len(damage) == 1 else f"{len(damage)} lines"
            self.put(name, f": {lines} could not be read ({damage[0]})")
        return found


def _in_one_line(error: Exception) -> str:
    shown = f"{Path(error.location).name}: {error.detail}" if isinstance(error, BadLineError) else str(error)
    return " ".join(shown.split())
