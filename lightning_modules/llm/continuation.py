"""Greedy answers that go on from what the LLM has read already: the prompt's keys and values are used twice."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass, replace
from typing import Any, Self

import torch
from torch import Tensor
from transformers import Cache, DynamicCache
from transformers.cache_utils import DynamicLayer

from ..losses.answer_loss import AnswerLogits

Reading = Callable[[Tensor], AbstractContextManager[None]]
"""Gives what must be in place while the LLM works on these rows of the batch: (b,) indices."""


@dataclass
class Prefix:
    """The prompts of B rows, and what the LLM would say first, as it has read them in one batch with their targets.

    Attributes:
        rows: (B,) their indices in the batch.
        cache: The keys and values of P positions of these rows, grown and cut while an answer is written.
        mask: (B, P) int64; 1 at the positions of a prompt and of what follows it in ``begun``, 0 elsewhere.
        lengths: (B,) how many positions these are.
        logits: (B, V) what is predicted after them.
        begun: Per row the first tokens of its target, as far as each is the likeliest after those before it.
    """

    rows: Tensor
    cache: Any
    mask: Tensor
    lengths: Tensor
    logits: Tensor
    begun: list[list[int]]

    def select(self, places: Tensor) -> Self:
        """Returns the prefix of some of its rows (b,); the cache, which is not copied, keeps no others."""
        self.cache.batch_select_indices(places)
        begun = [self.begun[place] for place in places.tolist()]
        kept = (self.mask[places], self.lengths[places], self.logits[places])
        return type(self)(self.rows[places], self.cache, *kept, begun)


def prefix_of(llm: Any, cache: Any, attention_mask: Tensor, labels: Tensor, found: AnswerLogits) -> Prefix | None:
    """Cuts the prompts out of what an LLM has read, if it can go on from there.

    A position is hidden by the mask alone, wherever it stands, so the answers that were read after the prompts leave no
    trace. A target is a draft: as long as its tokens are the likeliest, they are what the LLM would have said, and need
    not be written again (the check of speculative decoding, Leviathan et al., arXiv 2211.17192, at temperature 0). All
    that holds for attention to all positions, each of which is told its place: not for sliding windows, states
    that are not keys and values, or LLMs that count their positions themselves.

    Args:
        llm: Any Hugging Face causal LM.
        cache: What it kept of the batch.
        attention_mask: (B, T), right padded.
        labels: (B, T), -100 where not supervised; the answer of a row begins where its prompt ends.
        found: What it predicted of the batch.

    Returns:
        None if it cannot, or a row has no answer.
    """
    supervised = labels != -100
    if not _goes_on(llm, cache) or not bool(supervised[:, 1:].any(dim=1).all()):
        return None
    first = (found.targets != -100).int().argmax(dim=1)
    predicted, targets = found.logits.argmax(dim=-1).tolist(), found.targets.tolist()
    begun = [_agreed(p[at:], t[at:]) for p, t, at in zip(predicted, targets, first.tolist(), strict=True)]
    said = torch.tensor([len(tokens) for tokens in begun], device=labels.device)
    lengths = supervised.int().argmax(dim=1) + said
    longest = int(lengths.max())
    cache.crop(-(labels.shape[1] - longest))
    rows = torch.arange(len(labels), device=labels.device)
    mask = attention_mask[:, :longest] * (torch.arange(longest, device=labels.device) < lengths[:, None])
    return Prefix(rows, cache, mask, lengths, found.logits[rows, first + said], begun)


def _agreed(predicted: list[int], target: list[int]) -> list[int]:
    """Returns the first tokens of a target that are predicted; never all, so that there is a prediction after them."""
    same = [said == wanted for said, wanted in zip(predicted, target, strict=True)]
    return target[: min([*same, False].index(False), len(target) - 1)]


def _goes_on(llm: Any, cache: Any) -> bool:
    """Returns whether an LLM can work on what it keeps in a cache, with positions of our own."""
    plain = isinstance(cache, Cache) and all(type(layer) is DynamicLayer for layer in cache.layers)
    return plain and "position_ids" in inspect.signature(llm.forward).parameters


@torch.no_grad()
def read_beginning(llm: Any, inputs_embeds: Tensor, alike: int) -> Any:
    """Reads once what all rows of a batch begin with, for all of them.

    A chat template writes the same system prompt into each: a third or more of a short question.

    Args:
        llm: Any Hugging Face causal LM.
        inputs_embeds: (B, T, H), the same in all rows up to ``alike``.
        alike: How many positions that are.

    Returns:
        The cache of B rows to go on from; None if the LLM cannot, or there is nothing to be saved.
    """
    cache = DynamicCache(config=llm.config)
    if not alike or len(inputs_embeds) < 2 or not _goes_on(llm, cache):
        return None
    llm(inputs_embeds=inputs_embeds[:1, :alike], past_key_values=cache, use_cache=True, logits_to_keep=1)
    cache.batch_repeat_interleave(len(inputs_embeds))
    return cache


def alike_positions(input_ids: Tensor, attention_mask: Tensor, audio_mask: Tensor, labels: Tensor) -> int:
    """Counts the positions with which all rows begin alike, as text that is not supervised, nor predicts what is.

    Args:
        input_ids: (B, T).
        attention_mask: (B, T).
        audio_mask: (B, T).
        labels: (B, T), -100 where not supervised.
    """
    same = (input_ids == input_ids[:1]) & attention_mask.bool() & ~audio_mask & (labels == -100)
    columns = same.all(dim=0)
    alike = int(columns.int().cumprod(dim=0).sum())
    return max(0, alike - 1)


@torch.no_grad()
def continued(llm: Any, prefix: Prefix, stops: list[int], max_new_tokens: int, reading: Reading) -> list[list[int]]:
    """Writes the likeliest tokens after each prompt; a row that has ended costs nothing more.

    Args:
        llm: The causal LM that read the prefix, which is used up.
        prefix: Of the rows to be continued.
        stops: Tokens that end a row.
        max_new_tokens: Longest answer.
        reading: What must be in place while it works on some rows.

    Returns:
        New tokens of each row, with the one that ended it, in the order of the prefix.
    """
    written = dict(zip(prefix.rows.tolist(), map(list, prefix.begun), strict=True))
    for place in range(max_new_tokens):
        tokens = prefix.logits.argmax(dim=-1)
        for row, token in zip(prefix.rows.tolist(), tokens.tolist(), strict=True):
            written[row].append(token)
        going = [
            at
            for at, row in enumerate(prefix.rows.tolist())
            if len(written[row]) < max_new_tokens and not {*stops} & {*written[row]}
        ]
        if not going:
            break
        if len(going) < len(tokens):
            chosen = torch.tensor(going, device=tokens.device)
            tokens, prefix = tokens[chosen], prefix.select(chosen)
        mask = torch.cat([prefix.mask, prefix.mask.new_ones(len(tokens), 1)], dim=1)
        with reading(prefix.rows):
            logits = llm(
                input_ids=tokens[:, None],
                attention_mask=mask,
                position_ids=(prefix.lengths + place)[:, None],
                past_key_values=prefix.cache,
                use_cache=True,
            ).logits[:, -1]
        prefix = replace(prefix, mask=mask, logits=logits)
    return [_to_the_end(row, stops)[:max_new_tokens] for row in written.values()]


def _to_the_end(tokens: list[int], stops: list[int]) -> list[int]:
    """Cuts after the first token that ends a row."""
    end = next((at + 1 for at, token in enumerate(tokens) if token in stops), None)
    return tokens[:end]
