"""The text LLM that a model came from, if named: yardstick and teacher instead of the model's own initial state."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from jinja2 import TemplateError
from torch import Tensor, nn
from transformers import AutoTokenizer, PreTrainedTokenizerBase

from ...foundation.assets import resolve
from .opening import open_causal_lm
from .pretrained import reading_from
from .vocabulary import check_same_ids

SAMPLES = (
    "The capital of Peru is Lima; 1,234.50 dollars in 1984?",
    "  def add(a, b):\n\treturn a + b  # adds\n\n",
    "Où est l'été? Übung macht den Meister. Привет, мир! 你好,世界。 こんにちは",
)
"""Texts that two tokenizers must tokenize alike: spaces, figures, code and several scripts."""
NEVER = -1e4
"""Logit of a token that the text LLM does not know: its probability is zero in every type, and no divergence is NaN."""


def check_base(ours: PreTrainedTokenizerBase, llm: str, base: str) -> None:
    """Refuses a text LLM that tokenizes the same text differently; reads only its tokenizer.

    Args:
        ours: Of the model that is trained.
        llm: That model's name.
        base: Hub id, folder or ``asset:`` name of the text LLM.

    Raises:
        OSError: If that tokenizer cannot be read.
        ValueError: With the first text or token that differs.
    """
    with reading_from("model.base", base):
        theirs = _tokenizer_of(resolve(base))
    names = f"model.llm '{llm}'", f"model.base '{base}'"
    added = {*ours.get_added_vocab(), *theirs.get_added_vocab()}
    known = theirs.get_vocab()
    words = {number for token, number in ours.get_vocab().items() if token not in added and known.get(token) != number}
    check_same_ids(ours, theirs, SAMPLES, sorted(words)[:1] + _conversation_ids(ours), names)


def _tokenizer_of(base: str) -> PreTrainedTokenizerBase:
    """Reads a tokenizer; transformers' own errors take several lines, and speak of a hub where a folder is missing."""
    try:
        return AutoTokenizer.from_pretrained(base, trust_remote_code=False)
    except (OSError, ValueError, ImportError) as error:
        missing = Path(base).is_absolute() and not Path(base).exists()
        reason = "it does not exist" if missing else str(error).strip().splitlines()[0].strip()
        raise OSError(f"{reason} (its tokenizer is needed wherever the run is used)") from error


def _conversation_ids(tokenizer: PreTrainedTokenizerBase) -> list[int]:
    """Returns the ids that the chat template writes around a question, without any for sound."""
    contents: list[Any] = ["?", [{"type": "text", "text": "?"}]]
    for content in contents:
        try:
            text = tokenizer.apply_chat_template([{"role": "user", "content": content}], tokenize=False)
        except (TemplateError, TypeError):
            continue
        return sorted(set(tokenizer(str(text), add_special_tokens=False)["input_ids"]))
    return []


def open_base(base: str, dtype: torch.dtype) -> Any:
    """Loads the text LLM, or the one inside an audio LLM."""
    with reading_from("model.base", base):
        return open_causal_lm(resolve(base), dtype)


def as_many_rows(logits: Tensor, llm: nn.Module) -> Tensor:
    """Converts logits (..., V) to the vocabulary of another LLM.

    An audio LLM may have more tokens than its text base, which then never predicts them, or fewer padding rows, which
    are then dropped.
    """
    rows = llm.get_output_embeddings().weight.shape[0]  # type: ignore[operator]
    missing = rows - logits.shape[-1]
    return nn.functional.pad(logits, (0, missing), value=NEVER) if missing > 0 else logits[..., :rows]
