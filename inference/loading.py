"""Loads a model to use: a run, a checkpoint, an export, or any causal LM."""

from __future__ import annotations

import json
import pickle
from pathlib import Path
from typing import Any

import torch

from ..foundation.assets import resolve
from ..foundation.errors import UserError
from ..foundation.quiet import quieten
from ..foundation.run_names import CHECKPOINTS, CONFIG
from .loaded_model import LoadedModel
from .run_settings import data_settings
from .text_front_end import TextFrontEnd

RUNS = "a run directory, a checkpoint or an export"
DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16}


def load(source: str | Path, device: str | None = None, dtype: torch.dtype | str = "float32") -> LoadedModel:
    """Loads a model in eval mode.

    Args:
        source: Run directory, ``.ckpt`` file, export, hub id, model folder or ``asset:NAME``.
        device: Where to; ``None`` takes a GPU if there is one.
        dtype: Of the weights; ``float32``, ``bfloat16`` or a torch type.

    Raises:
        UserError: If it cannot be loaded, with what would be.
    """
    quieten()
    kind = DTYPES[dtype] if isinstance(dtype, str) else dtype
    where = _device(device)
    path = Path(source)
    if comes_from_a_run(path):
        return _from_run(path, where, kind)
    return _text_llm(str(source), where, kind)


def comes_from_a_run(path: Path) -> bool:
    """Tells whether this is a run directory, a checkpoint or an export, by its name and what lies in it."""
    from ..lightning_modules.saving.export_folder import is_export

    return (
        path.is_file()
        or path.suffix == ".ckpt"
        or is_export(path)
        or any((path / part).exists() for part in (CHECKPOINTS, CONFIG))
    )


def load_speech_llm(source: Path, device: str | None = None) -> Any:
    """Loads the ``SpeechLLM`` of a run directory, a checkpoint or an export, in eval mode.

    Args:
        source: Which.
        device: Where to; ``None`` takes a GPU if there is one.

    Raises:
        UserError: If the checkpoint is damaged, or there is no such device.
    """
    from safetensors import SafetensorError

    from ..lightning_modules import SpeechLLM

    quieten()
    where = _device(device)
    if not source.exists():
        raise UserError(f"{source} does not exist; allowed: {RUNS}")
    try:
        return SpeechLLM.from_run(source, map_location=where).to(where)
    except pickle.UnpicklingError as error:
        reason = "its checkpoint holds objects besides numbers, texts and tensors, and making them could run code"
        raise UserError(f"{source} cannot be loaded: {reason}; allowed: {RUNS} of `textkeep`") from error
    except EOFError as error:
        reason = "its checkpoint is empty, cut short, or no checkpoint at all"
        raise UserError(f"{source} cannot be loaded: {reason}; allowed: {RUNS}") from error
    except (KeyError, TypeError) as error:
        reason = f"its checkpoint is not one of `textkeep fit` ({type(error).__name__}: {error})"
        raise UserError(f"{source} cannot be loaded: {reason}; allowed: {RUNS}") from error
    except (RuntimeError, SafetensorError, json.JSONDecodeError) as error:
        reason = (str(error) or type(error).__name__).splitlines()[0].partition(" This is an internal")[0]
        raise UserError(f"{source} cannot be loaded, a file in it is damaged: {reason}") from error


def _device(device: str | None) -> str:
    where = device or ("cuda" if torch.cuda.is_available() else "cpu")
    try:
        torch.empty(1, device=where)
    except (RuntimeError, AssertionError) as error:
        raise UserError(f"--device {where}: {str(error).splitlines()[0]}") from error
    return where


def _from_run(path: Path, device: str, dtype: torch.dtype) -> LoadedModel:
    from ..lightning_modules.saving.checkpoints import find_checkpoint
    from ..lightning_modules.saving.export_folder import is_export

    speech_llm = load_speech_llm(path, device).to(dtype=dtype)
    checkpoint = None if is_export(path) else find_checkpoint(path).resolve()
    settings = data_settings(path)
    return LoadedModel(str(path), speech_llm.llm, speech_llm.front_end, speech_llm, settings, checkpoint)


def _text_llm(name: str, device: str, dtype: torch.dtype) -> LoadedModel:
    from transformers import AutoModelForCausalLM, AutoTokenizer

    from ..lightning_modules.llm.vocabulary import check_vocabulary

    source = resolve(name)
    try:
        llm: Any = AutoModelForCausalLM.from_pretrained(source, dtype=dtype)
        tokenizer = AutoTokenizer.from_pretrained(source)
    except (OSError, ValueError) as error:
        allowed = f"a hub id, a model folder, asset:NAME, {RUNS}"
        reason = str(error).splitlines()[0]
        raise UserError(f"{name} cannot be loaded ({reason}); allowed: {allowed}") from error
    check_vocabulary(llm, tokenizer, name)
    if tokenizer.pad_token_id is None:
        tokenizer.pad_token = tokenizer.eos_token
    return LoadedModel(name, llm.to(device).eval(), TextFrontEnd(tokenizer, llm.get_input_embeddings().weight.shape[0]))
