"""Greedy answers from input embeddings."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, NamedTuple

import torch
from torch import Tensor
from transformers import GenerationConfig, PreTrainedTokenizerBase


class Written(NamedTuple):
    """What an LLM generated.

    Attributes:
        ids: New tokens (B, L), right padded.
        ended: Whether each row ended before the longest length.
        texts: Each row up to its end, stripped and without special tokens.
    """

    ids: Tensor
    ended: list[bool]
    texts: list[str]


def stop_ids(llm: Any, tokenizer: PreTrainedTokenizerBase, end_id: int | None = None) -> list[int]:
    """Lists the tokens that end an answer: the LLM's own (Llama 3: end of text, end of turn) and the one learned.

    Args:
        llm: Any Hugging Face causal LM.
        tokenizer: Its tokenizer; its end-of-sequence token is one of them.
        end_id: What ends an answer in the chat template: the last token that training supervises.
    """
    own = llm.generation_config.eos_token_id
    found = [*([own] if isinstance(own, int) else own or []), tokenizer.eos_token_id, end_id]
    return sorted({int(stop) for stop in found if stop is not None})


@contextmanager
def greedily(llm: Any, tokenizer: PreTrainedTokenizerBase, stops: list[int]) -> Iterator[None]:
    """Makes an LLM generate greedily, whatever its ``generation_config.json`` asks for.

    Its penalties, beams, banned n-grams, suppressed and forced tokens and minimum lengths would also apply to a config
    passed to ``generate`` (Qwen 2.5 has a repetition penalty), so the LLM's config is replaced within the context.
    """
    theirs = llm.generation_config
    llm.generation_config = GenerationConfig(
        do_sample=False,
        num_beams=1,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=stops,
        pad_token_id=tokenizer.pad_token_id,
    )
    try:
        yield
    finally:
        llm.generation_config = theirs


@torch.no_grad()
def greedy_tokens(
    llm: Any,
    tokenizer: PreTrainedTokenizerBase,
    inputs_embeds: Tensor,
    attention_mask: Tensor,
    max_new_tokens: int,
    end_id: int | None = None,
) -> Written:
    """Generates one answer per row, batched, with a KV cache.

    Args:
        llm: Any Hugging Face causal LM.
        tokenizer: Its tokenizer.
        inputs_embeds: (B, T, H), left padded.
        attention_mask: (B, T).
        max_new_tokens: Longest answer.
        end_id: What ends an answer in the chat template.
    """
    stops = stop_ids(llm, tokenizer, end_id)
    with greedily(llm, tokenizer, stops):
        ids = llm.generate(inputs_embeds=inputs_embeds, attention_mask=attention_mask, max_new_tokens=max_new_tokens)
    rows = ids.tolist()
    ended = [any(token in stops for token in row) for row in rows]
    return Written(ids, ended, answer_texts(rows, tokenizer, stops))


def answer_texts(
    rows: Sequence[Sequence[int]], tokenizer: PreTrainedTokenizerBase, stops: Collection[int]
) -> list[str]:
    """Returns the text of each row of new tokens up to the first that ends it, without special tokens, stripped."""
    ends = [next((at for at, token in enumerate(row) if token in stops), None) for row in rows]
    answers = [list(row[:end]) for row, end in zip(rows, ends, strict=True)]
    return [text.strip() for text in tokenizer.batch_decode(answers, skip_special_tokens=True)]
