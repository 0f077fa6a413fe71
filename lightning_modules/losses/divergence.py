"""Kullback-Leibler divergences of predicted tokens, exact or over the teacher's top tokens."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from ..precision import at_least_float32


def divergence(teacher: Tensor, student: Tensor, temperature: float = 1.0) -> Tensor:
    """Computes KL(teacher || student) at each position, in nats.

    The distributions are softmax(logits / temperature); a distillation loss multiplies by temperature squared, so that
    its gradient keeps its size (Hinton et al., arXiv 1503.02531, section 2).

    Args:
        teacher: Logits (N, V).
        student: Logits (N, V); the gradient goes here.
        temperature: Above 1, unlikely tokens count more.

    Returns:
        (N,), at least float32.
    """
    target = (at_least_float32(teacher) / temperature).log_softmax(dim=-1)
    predicted = (at_least_float32(student) / temperature).log_softmax(dim=-1)
    return nn.functional.kl_div(predicted, target, reduction="none", log_target=True).sum(dim=-1)


def top_divergence(log_probs: Tensor, tokens: Tensor, student: Tensor, temperature: float = 1.0) -> Tensor:
    """Computes the KL between distributions over k + 1 outcomes: the teacher's top tokens and "any other".

    Merging outcomes never raises a divergence: this is a lower bound of :func:`divergence`, and equal to it if the
    student distributes the rest as the teacher does.

    Args:
        log_probs: The teacher's, of its top tokens at the same temperature (N, k).
        tokens: Which tokens these are (N, k).
        student: Logits (N, V); the gradient goes here.
        temperature: Of both.

    Returns:
        (N,), at least float32.
    """
    predicted = (at_least_float32(student) / temperature).log_softmax(dim=-1)
    others = predicted.scatter(-1, tokens, float("-inf")).logsumexp(dim=-1)
    top = log_probs.to(predicted.dtype)
    rest = (1 - top.exp().sum(dim=-1)).clamp(min=0)
    # An empty rest does not contribute to the divergence, whatever probability the student gives it.
    remainder = torch.where(rest > 0, rest * (rest.clamp(min=1e-30).log() - others.clamp(min=-1e4)), 0.0)
    return (top.exp() * (top - predicted.gather(-1, tokens))).sum(dim=-1) + remainder
