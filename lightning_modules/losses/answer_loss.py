"""Speech among the text embeddings, and the exact loss on the answer tokens of each row."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from ...foundation.sharding import own_part
from ..precision import at_least_float32


class AnswerLogits(NamedTuple):
    """What the LLM predicts from the first supervised position of a batch on.

    Attributes:
        logits: (B, K, V).
        targets: (B, K), -100 where not supervised.
    """

    logits: Tensor
    targets: Tensor


class ReadAnswers(NamedTuple):
    """Predictions for a batch, and the LLM's cache.

    Attributes:
        found: The predictions.
        cache: Keys and values of all positions, in transformers' format; None if they were not requested.
    """

    found: AnswerLogits
    cache: Any


def predict_answers(llm: nn.Module, inputs_embeds: Tensor, attention_mask: Tensor, labels: Tensor) -> AnswerLogits:
    """Predicts the supervised tokens (:func:`read_answers` without a cache)."""
    return read_answers(llm, inputs_embeds, attention_mask, labels, keep=False).found


def read_answers(
    llm: nn.Module,
    inputs_embeds: Tensor,
    attention_mask: Tensor,
    labels: Tensor,
    keep: bool = True,
    beginning: Any = None,
) -> ReadAnswers:
    """Predicts the supervised tokens, and keeps what is needed to continue from any position.

    Logits are computed only from the first supervised position of the batch on: with a long prompt and a vocabulary
    of 50,000 or more they are the largest tensor of a step.

    Args:
        llm: Any Hugging Face causal LM.
        inputs_embeds: (B, T, H).
        attention_mask: (B, T).
        labels: (B, T), -100 where not supervised, unshifted as in transformers.
        keep: Whether the keys and values are kept.
        beginning: A cache of the first positions, none of them supervised, which are then not read again.
    """
    known = 0 if beginning is None else beginning.get_seq_length()
    targets = labels[:, 1:]
    columns = (targets != -100).any(dim=0).nonzero()
    first = int(columns[0]) if len(columns) else targets.shape[1] - 1
    out = llm(
        inputs_embeds=inputs_embeds[:, known:],
        attention_mask=attention_mask,
        past_key_values=beginning,
        use_cache=keep or beginning is not None,
        logits_to_keep=labels.shape[1] - first,
    )
    found = AnswerLogits(out.logits[:, :-1], targets[:, first:])
    return ReadAnswers(found, out.past_key_values if keep else None)


def cross_entropies(found: AnswerLogits) -> tuple[Tensor, Tensor]:
    """Sums the cross-entropy of the supervised tokens for each row.

    Returns:
        Loss sums (B,) in nats, at least float32, and numbers of answer tokens (B,).
    """
    losses = nn.functional.cross_entropy(
        at_least_float32(found.logits.flatten(0, 1)), found.targets.flatten(), ignore_index=-100, reduction="none"
    )
    return losses.view(found.targets.shape).sum(dim=1), (found.targets != -100).sum(dim=1)


def splice(text: Tensor, speech: Tensor, lengths: Tensor, audio_mask: Tensor) -> Tensor:
    """Puts speech embeddings where the audio mask is true.

    Args:
        text: Embeddings of the tokens (B, T, H); those under the mask are replaced.
        speech: (N, P, H), clips in the order in which their positions occur.
        lengths: (N,) real positions of each clip.
        audio_mask: (B, T).

    Returns:
        (B, T, H).

    Raises:
        ValueError: If mask and lengths disagree on the number of positions.
    """
    real = torch.arange(speech.shape[1], device=speech.device)[None, :] < lengths[:, None]
    flat = speech[real].to(text.dtype)
    if flat.shape[0] != int(audio_mask.sum()):
        raise ValueError(
            f"the batch reserves {int(audio_mask.sum())} positions for speech, but the adaptor made {flat.shape[0]}"
        )
    return text.masked_scatter(audio_mask[:, :, None], flat)


def zero_through(modules: Iterable[nn.Module], like: Tensor) -> Tensor:
    """Returns a scalar zero with a gradient path to every trainable parameter of the modules.

    Under DDP, a rank whose batch has no speech would otherwise leave the speech parameters without a gradient and hang
    the other ranks. One element of each parameter is read, so its gradient is zero everywhere. For a sharded parameter
    (a block that does not run), it is an element of this rank's part, if that has any.
    """
    total = like.new_zeros(())
    for module in modules:
        for parameter in module.parameters():
            if parameter.requires_grad:
                total = total + own_part(parameter).flatten()[:1].sum().to(like.dtype) * 0
    return total
