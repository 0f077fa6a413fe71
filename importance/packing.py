"""Examples that begin alike in one row: what they share is run once, and no padding at all.

Questions to one model begin with the same words of its chat template, often half of a short example. Behind a causal
mask these positions compute the same whatever follows. So a batch becomes one row: the common beginning, then the rest
of each example, each with its own positions and a mask by which it sees the beginning and itself alone.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from .losses import IGNORED, AnswerLoss

WORTH = 0.8
"""Share of a batch's positions above which a row is not worth it."""
LONGEST = 1024
"""Positions of a row above which it is not worth it: attention and its mask grow with their square."""
MASKS = ("sdpa", "eager")
"""Attention of transformers that takes a mask of every pair of positions."""
ROUNDING = 100.0
"""Of a loss, in units of float32: more than that is another loss."""


@dataclass(frozen=True)
class Packed:
    """The examples of a batch in one row of L positions.

    Attributes:
        batch: ``input_ids`` (1, L) or ``inputs_embeds`` (1, L, H), ``attention_mask`` (1, 1, L, L), added to
            the scores, ``position_ids`` and ``labels`` (1, L).
        owners: (L,) example of each position; those of the common beginning count as the first one's.
        examples: Their number B.
    """

    batch: dict[str, Tensor]
    owners: Tensor
    examples: int

    def losses(self, loss: AnswerLoss) -> Tensor:
        """Returns the mean loss of each example over its answer tokens (B,), in float64."""
        logits, targets = loss.forward(self.batch, position_ids=self.batch["position_ids"])
        wide = logits[0].to(torch.promote_types(logits.dtype, torch.float32))
        tokens = F.cross_entropy(wide, targets[0], reduction="none").double()
        asked = self.owners[1:][self.batch["labels"][0, 1:] != IGNORED]
        sums = tokens.new_zeros(self.examples).index_add(0, asked, tokens)
        return sums / torch.bincount(asked, minlength=self.examples)


def pack(batch: Mapping[str, Any], dtype: torch.dtype) -> Packed | None:
    """Packs a batch; ``None`` where its examples begin with nothing in common, or too little to save much.

    Args:
        batch: ``input_ids`` or ``inputs_embeds``, ``attention_mask`` and ``labels``.
        dtype: In which the model computes.
    """
    labels: Tensor = batch["labels"]
    embeds = batch.get("inputs_embeds")
    read: Tensor = batch["input_ids"] if embeds is None else embeds
    mask = batch.get("attention_mask")
    content = (torch.ones_like(labels) if mask is None else mask).bool()
    columns = torch.arange(labels.shape[1], device=labels.device)
    supervised = labels != IGNORED
    content &= columns <= (columns * supervised).amax(dim=1, keepdim=True)  # nothing reads what stands behind answers
    shared = _beginning(read, content, supervised)
    kept = content.clone()
    kept[1:, :shared] = False
    rows, places = kept.nonzero(as_tuple=True)
    if not shared or len(rows) > min(WORTH * labels.numel(), LONGEST):
        return None
    seen = (places[:, None] >= places) & ((rows[:, None] == rows) | (places < shared))
    added = torch.zeros(seen.shape, dtype=dtype, device=labels.device).masked_fill(~seen, torch.finfo(dtype).min)
    name = "input_ids" if embeds is None else "inputs_embeds"
    found = {name: read[rows, places], "position_ids": places, "labels": labels[rows, places], "attention_mask": added}
    packed = {key: value[None] for key, value in found.items()}
    return Packed({**packed, "attention_mask": added[None, None]}, rows, len(labels))


def _beginning(read: Tensor, content: Tensor, supervised: Tensor) -> int:
    """Counts the first columns that are the same in all rows, followed by one that no row is asked for."""
    same = (read == read[:1]).flatten(2).all(dim=2) if read.dim() == 3 else read == read[:1]
    alike = int((same & content & ~supervised).all(dim=0).cumprod(0).sum())
    while 0 < alike < supervised.shape[1] and bool(supervised[:, alike].any()):
        alike -= 1  # that token is predicted from the beginning, where only the first example is read on
    return alike


def packs(model: nn.Module, loss: AnswerLoss) -> bool:
    """Tells whether a model can be given a packed row: by its attention, and in a type that tells a difference."""
    attention = getattr(getattr(model, "config", None), "_attn_implementation", None)
    dtype = next(model.parameters()).dtype
    return attention in MASKS and loss.takes("position_ids") and dtype in (torch.float32, torch.float64)


def packed_equally(batch: Mapping[str, Any], model: nn.Module, loss: AnswerLoss) -> Packed | None:
    """Packs a batch if the model then has the same losses, but for rounding; costs two forward passes.

    It has not where positions see more than what stands before them, less, or what no mask says (a recurrent state).
    """
    dtype = next(model.parameters()).dtype
    if (found := pack(batch, dtype)) is None:
        return None
    expected = loss.per_example(*loss.forward(batch)).double()
    try:
        losses = found.losses(loss)
    except (RuntimeError, ValueError, TypeError, IndexError):  # a model of its own kind need not know such a mask
        return None
    bound = ROUNDING * torch.finfo(torch.float32).eps * expected.abs().clamp(min=1.0)
    return found if bool(((losses - expected).abs() <= bound).all()) else None
