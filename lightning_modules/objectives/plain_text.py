"""Remedies that read plain text beside the questions."""

from __future__ import annotations

from torch import Tensor

from ..contract import Batch, SpeechModel
from ..losses.answer_loss import cross_entropies
from ..losses.divergence import divergence
from .beside_text import BesideText


class PlainTextDistillation(BesideText):
    """KL(untouched LLM || model) on passages of plain text: the model reads them as it did before it learned to listen.

    This is RLHF's pull towards the base model's predictions (Ziegler et al., arXiv 1909.08593, section 2: the penalty
    beta KL(pi || rho)), but in the direction of distillation (Hinton et al., arXiv 1503.02531), over the whole
    vocabulary at every token of the text, averaged over tokens. It constrains what the LLM says rather than its
    weights, on text that speech never touches. Its weight can follow a budget (``ControlWeight``: ``of:
    plain_text_kl``).

    A step costs two further passes over ``passages`` times ``tokens`` positions, one of them without gradients, and the
    untouched LLM in memory (none under LoRA). Arguments as in :class:`BesideText`.
    """

    name = "plain_text_kl"

    def start(self, model: SpeechModel) -> None:
        """Reads the text, and keeps the untouched LLM in memory."""
        super().start(model)
        model.reference.resident = True

    def mean(self, model: SpeechModel, text: Batch) -> Tensor:
        """Returns the mean divergence."""
        untouched = model.reference.untouched_logits(text)
        found = model.answer_logits(text)
        read = found.targets != -100
        return divergence(untouched.logits[read], found.logits[read]).mean()


class PlainTextReplay(BesideText):
    """Cross-entropy on passages of plain text: the model continues to learn what language models are pretrained on.

    Replay whose strength can follow a budget (``ControlWeight``: ``of: plain_text_ce``). The share of ``data.replay``
    cannot, since its batches are planned before an epoch begins. Unlike :class:`PlainTextDistillation` it needs no
    untouched LLM, and learns the text as well as keeping to it. Arguments as in :class:`BesideText`.
    """

    name = "plain_text_ce"

    def mean(self, model: SpeechModel, text: Batch) -> Tensor:
        """Returns the mean loss per token."""
        losses, tokens = cross_entropies(model.answer_logits(text))
        return losses.sum() / tokens.sum()
