"""Models that come from no run, by hub id, folder or ``asset:NAME``: text LLMs, and audio LLMs with their own ear."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch

from ..foundation.assets import resolve
from ..foundation.errors import UserError
from .loaded_model import LoadedModel
from .origin import Origin
from .text_llm import TextLLM

if TYPE_CHECKING:
    from ..lightning_modules import SpeechLLM

ALLOWED = "a hub id, a model folder, asset:NAME, a run directory, a checkpoint or an export"
_OF_A_FAMILY = (OSError, ValueError, ImportError, TypeError, KeyError, AttributeError, RuntimeError)
"""How a processor of some family may fail: not all are here to be tried, and the text LLM inside is readable still."""


def open_named(name: str, device: torch.device, dtype: torch.dtype | None) -> LoadedModel:
    """Loads a text LLM, or an audio LLM with its own ear.

    An audio LLM that ``OwnEar`` cannot hear with is loaded as the text LLM inside it, which knows why it cannot listen.

    Args:
        name: Hub id, folder or ``asset:`` name.
        device: Where to.
        dtype: Of the weights; None keeps their own.

    Raises:
        UserError: If it cannot be loaded.
    """
    from ..lightning_modules.llm.opening import is_audio_llm

    try:
        audio_llm = is_audio_llm(resolve(name))
    except (OSError, ValueError, ImportError) as error:
        raise _refused(name, error) from error
    deaf = ""
    if audio_llm:
        try:
            return LoadedModel(_listener(name, device, dtype), Origin(name, audio_llm=True))
        except _OF_A_FAMILY as error:
            deaf = _reason(error)
    return LoadedModel(_text_llm(name, device, dtype), Origin(name, audio_llm=audio_llm, deaf=deaf))


def _listener(name: str, device: torch.device, dtype: torch.dtype | None) -> SpeechLLM:
    from ..lightning_modules import OwnEar, SpeechLLM
    from ..lightning_modules.llm.opening import read_config
    from ..lightning_modules.precision import default_dtype

    model = SpeechLLM(name, ear=OwnEar())
    _ = model.front_end  # a processor that cannot be used says so before any weights are read
    own = read_config(resolve(name)).get_text_config(decoder=True).dtype
    with default_dtype(dtype or (own if isinstance(own, torch.dtype) else torch.float32)):
        model.configure_model()
    return model.to(device).eval()


def _text_llm(name: str, device: torch.device, dtype: torch.dtype | None) -> TextLLM:
    """Loads a text LLM, or the one inside an audio LLM."""
    from transformers import AutoTokenizer

    from ..lightning_modules.llm.opening import open_causal_lm
    from ..lightning_modules.llm.vocabulary import check_vocabulary

    source = resolve(name)
    try:
        llm: Any = open_causal_lm(source, dtype or "auto")
        tokenizer = AutoTokenizer.from_pretrained(source, trust_remote_code=False)
    except (OSError, ValueError, ImportError) as error:  # some families need a package of their own
        raise _refused(name, error) from error
    check_vocabulary(llm, tokenizer, name)
    if tokenizer.pad_token_id is None:
        tokenizer.pad_token = tokenizer.eos_token
    return TextLLM(llm.to(device).eval(), tokenizer)


def _refused(name: str, error: Exception) -> UserError:
    return UserError(f"{name} cannot be loaded ({str(error).strip().splitlines()[0]}); allowed: {ALLOWED}")


def _reason(error: Exception) -> str:
    """Returns the first sentence of why an ear cannot hear, without what a config might name instead."""
    told = (str(error).strip() or type(error).__name__).splitlines()[0].partition("; allowed:")[0]
    return told.rpartition(" cannot be heard with: ")[2].removeprefix("model.llm: ").partition(". ")[0]
