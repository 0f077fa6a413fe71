"""Greedy answers that continue from what the LLM has already read: the prompt's keys and values are reused."""

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
"""Returns the context in which the LLM works on these rows of the batch: (b,) indices."""


@dataclass
class Prefix:
    """The prompts of B rows as read in one batch with their targets, and what the LLM would say first.

    Attributes:
        rows: (B,) their indices in the batch.
        cache: The keys and values of P positions of these rows, grown and cut while an answer is written.
        mask: (B, P) int64; 1 at the positions of a prompt and of what follows it in ``begun``, 0 elsewhere.
        lengths: (B,) how many positions these are.
        logits: (B, V) what is predicted after them.
        begun: For each row, the first tokens of its target as long as each is the most likely after its predecessors.
    """

    rows: Tensor
    cache: Any
    mask: Tensor
    lengths: Tensor
    logits: Tensor
    begun: list[list[int]]

    def select(self, places: Tensor) -> Self:
        """Returns the prefix of some of its rows (b,); the cache is not copied and keeps only these."""
        self.cache.batch_select_indices(places)
        begun = [self.begun[place] for place in places.tolist()]
        kept = (self.mask[places], self.lengths[places], self.logits[places])
        return type(self)(self.rows[places], self.cache, *kept, begun)


def prefix_of(llm: Any, cache: Any, attention_mask: Tensor, labels: Tensor, found: AnswerLogits) -> Prefix | None:
    """Cuts the prompts out of what an LLM has read, if it can continue from there.

    The mask alone hides a position, wherever it is, so the answers read after the prompts leave no trace. A target
    serves as a draft: as long as its tokens are the most likely, they are what the LLM would have said and need not be
    generated again (the check of speculative decoding, Leviathan et al., arXiv 2211.17192, at temperature 0). All that
    holds for full attention with explicit positions: not for sliding windows, states other than keys and values, or
    LLMs that count positions themselves.

    Args:
        llm: Any Hugging Face causal LM.
        cache: Its cache for the batch.
        attention_mask: (B, T), right padded.
        labels: (B, T), -100 where not supervised; the answer of a row begins where its prompt ends.
        found: Its predictions for the batch.

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
    """Returns the predicted first tokens of a target; never all, so that a prediction follows them."""
    same = [said == wanted for said, wanted in zip(predicted, target, strict=True)]
    return target[: min([*same, False].index(False), len(target) - 1)]


def _goes_on(llm: Any, cache: Any) -> bool:
    """Returns whether an LLM can continue from its cache, with positions that we pass."""
    plain = isinstance(cache, Cache) and all(type(layer) is DynamicLayer for layer in cache.layers)
    return plain and "position_ids" in inspect.signature(llm.forward).parameters


@torch.no_grad()
def read_beginning(llm: Any, inputs_embeds: Tensor, alike: int) -> Any:
    """Reads the common prefix of a batch's rows once, for all of them.

    A chat template writes the same system prompt into each: a third or more of a short question.

    Args:
        llm: Any Hugging Face causal LM.
        inputs_embeds: (B, T, H), the same in all rows up to ``alike``.
        alike: Length of the prefix.

    Returns:
        The cache of B rows to continue from; None if the LLM cannot, or there is nothing to save.
    """
    cache = DynamicCache(config=llm.config)
    if not alike or len(inputs_embeds) < 2 or not _goes_on(llm, cache):
        return None
    llm(inputs_embeds=inputs_embeds[:1, :alike], past_key_values=cache, use_cache=True, logits_to_keep=1)
    cache.batch_repeat_interleave(len(inputs_embeds))
    return cache


def alike_positions(input_ids: Tensor, attention_mask: Tensor, audio_mask: Tensor, labels: Tensor) -> int:
    """Counts the leading positions that are the same text in all rows, not supervised and not predicting what is.

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
    """Generates the most likely tokens after each prompt; a finished row costs nothing more.

    Args:
        llm: The causal LM that read the prefix, which is used up.
        prefix: Of the rows to be continued.
        stops: Tokens that end a row.
        max_new_tokens: Longest answer.
        reading: The context in which it works on some rows.

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
