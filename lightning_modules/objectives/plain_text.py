"""Remedies that read plain text beside the questions."""

from __future__ import annotations

from torch import Tensor

from ..contract import Batch, SpeechModel
from ..losses.answer_loss import cross_entropies
from ..losses.divergence import divergence
from .beside_text import BesideText


class PlainTextDistillation(BesideText):
    """KL(untouched LLM || model) on passages of plain text: the model reads them as it did before it learned to listen.

    The pull to the base model's own predictions of RLHF (Ziegler et al., arXiv 1909.08593, section 2: the penalty beta
    KL(pi || rho)), here in the direction of distillation (Hinton et al., arXiv 1503.02531), over the whole vocabulary
    at every token of the text, the mean over tokens. It holds what the LLM says and not its weights, on text that
    speech never touches. Its weight can follow a budget (``ControlWeight``: ``of: plain_text_kl``).

    A step costs two further passes over ``passages`` times ``tokens`` positions, one of them without gradients, and the
    untouched LLM a second time in memory (under LoRA: none). Arguments as in :class:`BesideText`.
    """

    name = "plain_text_kl"

    def start(self, model: SpeechModel) -> None:
        """Reads the text, and keeps the untouched LLM at hand."""
        super().start(model)
        model.reference.resident = True

    def mean(self, model: SpeechModel, text: Batch) -> Tensor:
        """Returns the mean divergence."""
        untouched = model.reference.untouched_logits(text)
        found = model.answer_logits(text)
        read = found.targets != -100
        return divergence(untouched.logits[read], found.logits[read]).mean()


class PlainTextReplay(BesideText):
    """Cross-entropy on passages of plain text: the model goes on to learn what a language model is pretrained on.

    Replay whose strength can follow a budget (``ControlWeight``: ``of: plain_text_ce``). The share of ``data.replay``
    cannot: its batches are planned for an epoch before it begins. Unlike :class:`PlainTextDistillation` it needs no
    untouched LLM, and learns the text as well as keeping to it. Arguments as in :class:`BesideText`.
    """

    name = "plain_text_ce"

    def mean(self, model: SpeechModel, text: Batch) -> Tensor:
        """Returns the mean loss of a token."""
        losses, tokens = cross_entropies(model.answer_logits(text))
        return losses.sum() / tokens.sum()
