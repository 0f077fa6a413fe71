"""A trained model for the verbs that use one: a run directory, a checkpoint or an export."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import yaml

from .errors import CommandError, one_line

ALLOWED = "allowed: a run directory, a checkpoint or an export"

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
        if not isinstance(config, dict) or not isinstance(config.get("data") or {}, dict):
            raise ValueError("a mapping with trainer, model and data is expected")
        data = config.get("data") or {}
        return {**config, "data": data.get("init_args", data)}
    except (yaml.YAMLError, ValueError) as error:
        raise CommandError(f"{path} is not a run's configuration: {one_line(error)}") from error


def load_listener(source: Path, device: str | None, verb: str) -> Any:
    """The model in eval mode.

    Args:
        source: Run directory, checkpoint or export.
        device: Where to; ``None`` takes a GPU if there is one.
        verb: For the messages.

    Raises:
        CommandError: If the checkpoint is damaged, or there is no such device.
    """
    import json
    import pickle

    import torch
    from safetensors import SafetensorError

    from ..lightning_modules import SpeechLLM
    from .quiet import quieten

    quieten()
    where = device or ("cuda" if torch.cuda.is_available() else "cpu")
    try:
        torch.empty(1, device=where)
    except (RuntimeError, AssertionError) as error:
        raise CommandError(f"{verb}: --device {where}: {str(error).splitlines()[0]}") from error
    if not source.exists():
        raise CommandError(f"{verb}: {source} does not exist; {ALLOWED}")
    try:
        return SpeechLLM.from_run(source, map_location=where).to(where)
    except pickle.UnpicklingError as error:
        reason = "its checkpoint holds objects besides numbers, texts and tensors, and making them could run code"
        raise CommandError(f"{verb}: {source} cannot be loaded: {reason}; {ALLOWED} of `textkeep`") from error
    except EOFError as error:
        reason = "its checkpoint is empty, cut short, or no checkpoint at all"
        raise CommandError(f"{verb}: {source} cannot be loaded: {reason}; {ALLOWED}") from error
    except (KeyError, TypeError) as error:
        reason = f"its checkpoint is not one of `textkeep fit` ({type(error).__name__}: {error})"
        raise CommandError(f"{verb}: {source} cannot be loaded: {reason}; {ALLOWED}") from error
    except (RuntimeError, SafetensorError, json.JSONDecodeError) as error:
        reason = (str(error) or type(error).__name__).splitlines()[0].partition(" This is an internal")[0]
        raise CommandError(f"{verb}: {source} cannot be loaded, a file in it is damaged: {reason}") from error
