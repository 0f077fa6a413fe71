"""How well a language model predicts plain text, without any chat format around it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import torch
from torch import nn
from torch.nn.utils.rnn import pad_sequence

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase


@torch.no_grad()
def text_losses(
    llm: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, texts: Sequence[str], batch_size: int = 8
) -> list[tuple[float, int]]:
    """Returns the summed cross-entropy in nats and the number of tokens of each text.

    Every token is predicted, the first one from the beginning-of-sequence token (the end-of-sequence token if a model
    has none, as in lm-eval). A text longer than the model's context is scored in pieces.

    Args:
        llm: A causal LM, in eval mode.
        tokenizer: Its tokenizer.
        texts: The texts.
        batch_size: Pieces per batch.
    """
    start = tokenizer.bos_token_id if tokenizer.bos_token_id is not None else tokenizer.eos_token_id
    window = int(getattr(llm.config, "max_position_embeddings", 2048)) - 1
    pieces: list[tuple[int, torch.Tensor]] = []
    for index, text in enumerate(texts):
        ids = tokenizer(text, add_special_tokens=False)["input_ids"]
        pieces += [(index, torch.tensor([start, *ids[at : at + window]])) for at in range(0, len(ids), window)]
    pieces.sort(key=lambda piece: len(piece[1]))
    totals, counts = [0.0] * len(texts), [0] * len(texts)
    device = next(llm.parameters()).device
    for at in range(0, len(pieces), batch_size):
        batch = pieces[at : at + batch_size]
        ids = pad_sequence([piece for _, piece in batch], batch_first=True, padding_value=start).to(device)
        lengths = torch.tensor([len(piece) for _, piece in batch], device=device)
        mask = torch.arange(ids.shape[1], device=device)[None, :] < lengths[:, None]
        logits = llm(input_ids=ids, attention_mask=mask.long(), use_cache=False).logits[:, :-1]
        wide = logits.flatten(0, 1).to(torch.promote_types(logits.dtype, torch.float32))
        losses = nn.functional.cross_entropy(wide, ids[:, 1:].flatten(), reduction="none")
        sums = (losses.view(len(batch), -1).double() * mask[:, 1:]).sum(dim=1).tolist()
        for (index, piece), total in zip(batch, sums, strict=True):
            totals[index] += total
            counts[index] += len(piece) - 1
    return list(zip(totals, counts, strict=True))
