"""A model and the text LLM it came from, by the names given on the command line."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from ..foundation.errors import UserError

if TYPE_CHECKING:
    from ..inference import LoadedModel


def open_two(name: str, base: str, device: str | None, runs: bool = False) -> tuple[LoadedModel, LoadedModel]:
    """Loads a base and a model that came from it, in float32.

    Args:
        name: Of the model.
        base: Of its base.
        device: Where to; None takes a GPU if there is one.
        runs: Whether the model may be a run or an export.

    Raises:
        UserError: If one cannot be loaded, or is a run or an export where that is not allowed.
    """
    from ..inference import load
    from ..inference.loading import comes_from_a_run

    for given in (base,) if runs else (name, base):
        if comes_from_a_run(Path(given)):
            allowed = "with --base a model, by hub id or folder"
            raise UserError(f"{given} comes from a run, which knows its base; allowed: {allowed}")
    return load(base, device), load(name, device)
