"""The examples: half of them are scored, the other half evaluated."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import torch

from benchmarks.miniature.manual_text import paragraphs

if TYPE_CHECKING:
    from textkeep.inference import LoadedModel

Batches = list[dict[str, Any]]
TOKENS = 32  # of a passage; all have one length, so that nothing is padded
ROWS = 8


def plain(model: LoadedModel, count: int) -> Batches:
    """The first tokens of paragraphs of Python's language reference; the loss is on all of them but the first.

    Raises:
        ValueError: If there are too few paragraphs.
    """
    tokenizer = model.front_end.tokenizer
    encoded = (tokenizer(text, add_special_tokens=False)["input_ids"] for text in paragraphs())
    passages = [ids[:TOKENS] for ids in encoded if len(ids) >= TOKENS][:count]
    if len(passages) < count:
        raise ValueError(f"foretelling: {len(passages)} paragraphs of {TOKENS} tokens, {count} asked for")
    found = []
    for start in range(0, count, ROWS):
        ids = torch.tensor(passages[start : start + ROWS])
        labels = ids.clone()
        labels[:, 0] = -100
        found.append({"input_ids": ids, "attention_mask": torch.ones_like(ids), "labels": labels})
    return found


def questions(model: LoadedModel, count: int) -> Batches:
    """Held-out questions; the loss is on their answers."""
    from textkeep.inference import read_examples

    return list(model.inputs(read_examples("spoken-facts/general", "text", count, seed=0, skip=0), "text", ROWS))


TEXTS: dict[str, Callable[[LoadedModel, int], Batches]] = {"plain": plain, "questions": questions}


def rows(batches: Batches, count: int) -> list[dict[str, torch.Tensor]]:
    """The first examples one by one, (1, T) each, without their padding."""
    found = []
    for batch in batches:
        for row in range(len(batch["labels"])):
            real = batch["attention_mask"][row].bool()
            tensors = {k: batch[k] for k in ("input_ids", "inputs_embeds", "labels") if batch.get(k) is not None}
            found.append({k: v[row][real].unsqueeze(0) for k, v in tensors.items()})
    return found[:count]
