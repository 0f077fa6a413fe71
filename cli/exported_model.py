"""An export in place of a checkpoint: ``textkeep test --config RUN/config.yaml --ckpt_path EXPORT``."""

from __future__ import annotations

from pathlib import Path

from jsonargparse import Namespace

from ..foundation.errors import UserError
from ..lightning_modules.saving.adaptor_file import ADAPTOR, ENCODER
from ..lightning_modules.saving.export_folder import is_export, is_plain


def take_export(config: Namespace, verb: str) -> Path | None:
    """Replaces the model of a config by that of an export, if ``ckpt_path`` is one.

    Args:
        config: Of the verb; ``model`` and ``ckpt_path`` are changed in place.
        verb: ``fit``, ``validate``, ``test`` or ``predict``.

    Returns:
        The export.

    Raises:
        UserError: If the verb cannot use an export.
    """
    if config.ckpt_path is None or not is_export(config.ckpt_path):
        return None
    folder = Path(config.ckpt_path)
    if verb == "fit" and (folder / ENCODER).is_file():
        raise UserError(
            "ckpt_path: an export has no optimizer state, and a config cannot name the encoder that was "
            "trained along with it; allowed: the run's checkpoint"
        )
    if verb == "fit":
        weights = f" --model.adaptor_weights {folder / ADAPTOR}" if (folder / ADAPTOR).is_file() else ""
        settings = f"--model.llm {folder}{weights}"
        raise UserError(f"ckpt_path: an export has no optimizer state; to train it further: {settings}")
    if not is_plain(folder):
        raise UserError(f"ckpt_path: {folder} holds adapters or its own encoder; allowed: the run's checkpoint")
    config.model.llm = str(folder)
    if (folder / ADAPTOR).is_file():  # an audio LLM contains all its speech parts
        config.model.adaptor_weights = str(folder / ADAPTOR)
    config.model.tuning = Namespace(class_path="textkeep.lightning_modules.AdaptorOnly", init_args=Namespace())
    config.model.objectives = None
    config.ckpt_path = None
    return folder
