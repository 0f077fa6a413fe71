"""What ``textkeep speak`` may overwrite: its own output of an earlier call, which it continues."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from ...foundation.errors import UserError
from ...foundation.outputs import OVERWRITE
from .plan import Cast, plan


def check_own(folder: Path, manifests: Mapping[str, Sequence[Mapping[str, Any]]], cast: Cast, suffix: str) -> None:
    """Refuses to replace manifests in the output folder that hold other questions or another cast.

    A call continues its own manifest, even if questions were added or corrected.

    Args:
        folder: The output folder.
        manifests: Their lines, by file name.
        cast: The speakers.
        suffix: Suffix of the clips.

    Raises:
        UserError: With the manifest in the way.
    """
    for name, rows in manifests.items():
        said = {str(row["id"]): _takes(row, cast, suffix) for row in rows}
        there = read_own(folder / name)
        unknown = [str(line.get("id")) for line in there if str(line.get("id")) not in said]
        same = [line for line in there if Path(str(line.get("audio"))).name in said.get(str(line.get("id")), ())]
        if unknown:
            fault = f"holds {unknown[0]!r}, which is not among the questions now"
        elif there and not same:
            fault = "holds these questions, but all in another voice or wording"
        else:
            continue
        raise UserError(
            f"speak: {folder / name}: {fault}; allowed: another output folder, or {OVERWRITE} to replace the manifest"
        )


def check_inputs(folder: Path, inputs: Sequence[Path]) -> None:
    """Refuses to write a manifest over the one that is read.

    Raises:
        UserError: If an input lies in the output folder.
    """
    for path in inputs:
        if path.is_file() and (folder / path.name).exists() and path.samefile(folder / path.name):
            raise UserError(f"speak: {folder}: {path} is there already and would be replaced; allowed: another folder")


def _takes(row: Mapping[str, Any], cast: Cast, suffix: str) -> set[str]:
    """Returns the names of the clips that the voices would make of a line."""
    attempts = range(max(len(cast.voices), len(cast.heldout)))
    return {Path(plan(row, cast, suffix, attempt).clip).name for attempt in attempts}


def read_own(path: Path) -> list[dict[str, Any]]:
    """Reads the objects of a manifest, none if it is missing; a line that is no object counts as one without an id."""
    if not path.is_file():
        return []
    found = []
    for text in path.read_text(encoding="utf-8", errors="replace").split("\n"):
        if text.strip():
            try:
                line = json.loads(text)
            except json.JSONDecodeError:
                line = None
            found.append(line if isinstance(line, dict) else {})
    return found
