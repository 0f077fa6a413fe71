"""A trained model for the verbs that use one: a run directory, a checkpoint or an export."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import yaml

from .errors import CommandError

PROMPT_OPTIONS = ("speech_instruction", "text_instruction", "system", "template_options")
"""Settings of the data module that shape a prompt."""


def run_config(source: Path) -> dict[str, Any]:
    """The data settings of the run that a model comes from: its prompts have to be asked in the way it learned.

    Args:
        source: Run directory, a checkpoint in its ``checkpoints`` folder, or an export.

    Returns:
        The settings of the data module; empty if there is no ``config.yaml``, and the defaults apply.

    Raises:
        CommandError: If the file cannot be read.
    """
    from ..lightning_modules.export_folder import is_export, read_manifest

    if is_export(source):
        return read_manifest(source)["prompts"]
    return whole_config(source).get("data") or {}


def whole_config(source: Path) -> dict[str, Any]:
    """The ``config.yaml`` of a run directory or of the run of a checkpoint; empty if there is none.

    Raises:
        CommandError: If the file cannot be read.
    """
    folder = source if source.is_dir() else source.resolve().parent.parent
    path = folder / "config.yaml"
    if not path.is_file():
        return {}
    try:
        config = yaml.safe_load(path.read_text(encoding="utf-8")) or {}
        data = config.get("data") or {}
        return {**config, "data": data.get("init_args", data)}
    except (yaml.YAMLError, AttributeError, UnicodeDecodeError) as error:
        raise CommandError(f"{path} is not a run's configuration: {error}") from error


def load_listener(source: Path, device: str | None, verb: str) -> Any:
    """The model in eval mode.

    Args:
        source: Run directory, checkpoint or export.
        device: Where to; ``None`` takes a GPU if there is one.
        verb: For the messages.

    Raises:
        CommandError: If the checkpoint is damaged, or there is no such device.
    """
    import pickle

    import torch

    from ..lightning_modules import SpeechLLM
    from .quiet import quieten

    quieten()
    where = device or ("cuda" if torch.cuda.is_available() else "cpu")
    try:
        torch.empty(1, device=where)
    except (RuntimeError, AssertionError) as error:
        raise CommandError(f"{verb}: --device {where}: {str(error).splitlines()[0]}") from error
    if not source.exists():
        raise CommandError(f"{verb}: {source} does not exist; allowed: a run directory, a checkpoint or an export")
    try:
        return SpeechLLM.from_run(source, map_location=where).to(where)
    except (pickle.UnpicklingError, RuntimeError, KeyError, EOFError) as error:
        reason = (str(error) or type(error).__name__).splitlines()[0]
        raise CommandError(f"{verb}: {source} cannot be loaded: {reason}") from error
