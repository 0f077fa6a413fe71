"""Greedy answers from input embeddings."""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from torch import Tensor
from transformers import PreTrainedTokenizerBase


class Written(NamedTuple):
    """What an LLM wrote.

    Attributes:
        ids: New tokens (B, L), right padded.
        ended: Whether each row ended before the longest length.
    """

    ids: Tensor
    ended: list[bool]


@torch.no_grad()
def greedy_tokens(
    llm: Any,
    tokenizer: PreTrainedTokenizerBase,
    inputs_embeds: Tensor,
    attention_mask: Tensor,
    max_new_tokens: int,
) -> Written:
    """Writes one answer a row, batched, with a KV cache.

    Args:
        llm: Any Hugging Face causal LM.
        tokenizer: Its tokenizer.
        inputs_embeds: (B, T, H), left padded.
        attention_mask: (B, T).
        max_new_tokens: Longest answer.
    """
    # Chat models may stop on several tokens (Llama 3: end of text and end of turn).
    stops = llm.generation_config.eos_token_id
    stops = [stops] if isinstance(stops, int) else list(stops or [])
    stops = sorted({*stops, tokenizer.eos_token_id})
    ids = llm.generate(
        inputs_embeds=inputs_embeds,
        attention_mask=attention_mask,
        max_new_tokens=max_new_tokens,
        do_sample=False,
        temperature=None,
        top_p=None,
        top_k=None,
        eos_token_id=stops,
        pad_token_id=tokenizer.pad_token_id,
    )
    return Written(ids, torch.isin(ids, torch.tensor(stops, device=ids.device)).any(dim=1).tolist())


def greedy_answers(
    llm: Any,
    tokenizer: PreTrainedTokenizerBase,
    inputs_embeds: Tensor,
    attention_mask: Tensor,
    max_new_tokens: int,
) -> list[str]:
    """Answers of :func:`greedy_tokens` without special tokens, stripped."""
    ids = greedy_tokens(llm, tokenizer, inputs_embeds, attention_mask, max_new_tokens).ids
    return [text.strip() for text in tokenizer.batch_decode(ids, skip_special_tokens=True)]
