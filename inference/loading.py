"""Loads a model to use: a run, a checkpoint, an export, any causal LM, or somebody's audio LLM."""

from __future__ import annotations

import json
import pickle
from argparse import ArgumentError
from pathlib import Path
from typing import TYPE_CHECKING

import torch

from ..foundation.class_paths import problem_in
from ..foundation.errors import UserError
from ..foundation.quiet import quieten
from ..foundation.run_names import CHECKPOINTS, CONFIG
from .loaded_model import LoadedModel
from .named_models import open_named
from .origin import Origin
from .run_settings import data_settings

if TYPE_CHECKING:
    from ..lightning_modules import SpeechLLM

RUNS = "a run directory, a checkpoint or an export"
DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}
Dtype = torch.dtype | str | None


def load(source: str | Path, device: str | torch.device | None = None, dtype: Dtype = "float32") -> LoadedModel:
    """Loads a model in eval mode; an audio LLM by its name listens with its own ear.

    Args:
        source: Run directory, ``.ckpt`` file, export, hub id, model folder or ``asset:NAME``.
        device: Target device; None takes a GPU if there is one.
        dtype: Of the weights: ``float32``, ``bfloat16``, ``float16`` or a torch type; None keeps their own.

    Raises:
        UserError: If it cannot be loaded, with what can be.
    """
    path = Path(source)
    if comes_from_a_run(path):
        return load_run(path, device, dtype)
    quieten()
    return open_named(str(source), _device(device), _dtype(dtype))


def load_run(source: Path, device: str | torch.device | None = None, dtype: Dtype = None) -> LoadedModel:
    """Loads a ``SpeechLLM`` in eval mode, with its run's settings.

    Args:
        source: Run directory, ``.ckpt`` file or export.
        device: Target device; None takes a GPU if there is one.
        dtype: Of the weights; None keeps their own.

    Raises:
        UserError: If it is none of these, a checkpoint is damaged, or the device does not exist.
    """
    from ..lightning_modules.saving.checkpoints import find_checkpoint
    from ..lightning_modules.saving.export_folder import is_export, read_manifest

    quieten()
    kind, where = _dtype(dtype), _device(device)
    if not source.exists():
        raise UserError(f"{source} does not exist; allowed: {RUNS}")
    checkpoint = None if is_export(source) else find_checkpoint(source).resolve()
    speech_llm = _speech_llm(checkpoint or source, source, where)
    if kind is not None:
        speech_llm.to(dtype=kind)
    exported_at = None if checkpoint else (read_manifest(source).get("origin") or {}).get("step")
    return LoadedModel(speech_llm, Origin(str(source), data_settings(source), checkpoint, exported_at=exported_at))


def comes_from_a_run(path: Path) -> bool:
    """Returns whether this is a run directory, a checkpoint or an export, by its name and contents."""
    from ..lightning_modules.saving.export_folder import is_export

    return (
        path.is_file()
        or path.suffix == ".ckpt"
        or is_export(path)
        or any((path / part).exists() for part in (CHECKPOINTS, CONFIG))
    )


def _speech_llm(file: Path, source: Path, device: torch.device) -> SpeechLLM:
    """Loads a checkpoint or an export; errors refer to what the user named."""
    from safetensors import SafetensorError

    from ..lightning_modules import SpeechLLM

    try:
        return SpeechLLM.from_run(file, map_location=str(device)).to(device)
    except pickle.UnpicklingError as error:
        reason = "its checkpoint holds objects other than numbers, texts and tensors, and loading them could run code"
        raise UserError(f"{source} cannot be loaded: {reason}; allowed: {RUNS} of `textkeep`") from error
    except EOFError as error:
        reason = "its checkpoint is empty, cut short, or no checkpoint at all"
        raise UserError(f"{source} cannot be loaded: {reason}; allowed: {RUNS}") from error
    except ArgumentError as error:  # how jsonargparse refuses a class that the checkpoint names
        reason = problem_in(str(error)) or " ".join(str(error).split())
        raise UserError(f"{source} cannot be loaded: {reason}") from error
    except (KeyError, TypeError) as error:
        reason = f"its checkpoint is not one of `textkeep fit` ({type(error).__name__}: {error})"
        raise UserError(f"{source} cannot be loaded: {reason}; allowed: {RUNS}") from error
    except (RuntimeError, SafetensorError, json.JSONDecodeError) as error:
        reason = (str(error) or type(error).__name__).splitlines()[0].partition(" This is an internal")[0]
        raise UserError(f"{source} cannot be loaded, a file in it is damaged: {reason}") from error


def _device(device: str | torch.device | None) -> torch.device:
    where = device or ("cuda" if torch.cuda.is_available() else "cpu")
    try:
        torch.empty(1, device=where)
    except (RuntimeError, AssertionError) as error:
        raise UserError(f"device {where}: {str(error).splitlines()[0]}") from error
    return torch.device(where)


def _dtype(dtype: Dtype) -> torch.dtype | None:
    if not isinstance(dtype, str):
        return dtype
    if dtype not in DTYPES:
        raise UserError(f"dtype {dtype!r} does not fit; allowed: {', '.join(DTYPES)}")
    return DTYPES[dtype]
