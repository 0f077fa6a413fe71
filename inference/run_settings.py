"""Settings from the configuration of a model's run: a model must be prompted as it was trained."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import yaml

from ..foundation.errors import UserError
from ..foundation.run_names import CONFIG
from ..foundation.sharded_checkpoint import is_checkpoint

PROMPT_OPTIONS = ("speech_instruction", "text_instruction", "system", "template_options")
"""Settings of the data module that shape a prompt."""


def data_settings(source: Path) -> dict[str, Any]:
    """Returns the data settings of the run that a model comes from.

    Args:
        source: Run directory, a checkpoint in its ``checkpoints`` folder, or an export.

    Returns:
        The settings of the data module; empty if there is no ``config.yaml``, and the defaults apply.

    Raises:
        UserError: If the file cannot be read.
    """
    from ..lightning_modules.saving.export_folder import is_export, read_manifest

    if is_export(source):
        return read_manifest(source)["prompts"]
    return run_settings(source).get("data") or {}


def run_settings(source: Path) -> dict[str, Any]:
    """Reads the ``config.yaml`` of a run directory or of the run of a checkpoint; empty if there is none.

    Raises:
        UserError: If the file cannot be read.
    """
    folder = source.resolve().parent.parent if is_checkpoint(source) else source
    path = folder / CONFIG
    if not path.is_file():
        return {}
    try:
        config = yaml.safe_load(path.read_text(encoding="utf-8")) or {}
        if not isinstance(config, dict) or not isinstance(config.get("data") or {}, dict):
            raise ValueError("a mapping with trainer, model and data is expected")
        data = config.get("data") or {}
        return {**config, "data": data.get("init_args", data)}
    except (yaml.YAMLError, ValueError) as error:
        raise UserError(f"{path} is not a run's configuration: {' '.join(str(error).split())}") from error
