"""What a speech LLM does with a batch, in training and in use: it listens, reads, predicts and answers."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from functools import partial
from typing import NamedTuple, Self

import torch
from torch import Tensor
from transformers import PreTrainedTokenizerBase

from ..foundation.assets import resolve
from .contract import Batch
from .ears.adaptors import Adaptor
from .ears.ear import Ear
from .ears.encoders import SpeechEncoder
from .llm.changes import Change
from .llm.continuation import Prefix, alike_positions, continued, prefix_of, read_beginning
from .llm.generation import Written, answer_texts, greedily, greedy_tokens, stop_ids
from .llm.packed_embeddings import text_embeddings
from .llm.reference import ReferenceLLM
from .losses.answer_loss import AnswerLogits, cross_entropies, predict_answers, read_answers
from .losses.item_divergences import ItemDivergences, item_divergences
from .losses.shared_logits import SharedLogits
from .saving.trained_parts import TrainedParts


class ReadBatch(NamedTuple):
    """A batch of B questions with answers, which the LLM has read.

    Attributes:
        losses: (B,) summed losses on the answers, nats.
        tokens: (B,) numbers of answer tokens.
        answer: Generates greedy answers for some rows, up to a number of tokens (None: the model's own setting), once;
            None if the LLM cannot continue from what it has read and must be prompted again
            (:meth:`Listening.generate`).
    """

    losses: Tensor
    tokens: Tensor
    answer: Callable[[Sequence[int], int | None], list[str]] | None


class Listening(TrainedParts):
    """Encoder, adaptor and LLM in use; :class:`SpeechLLM` adds training.

    Attributes:
        llm_source: Hub id, folder or ``asset:`` name that the LLM came from.
        tokenizer: The LLM's.
        encoder: The speech encoder.
        adaptor: Maps its frames to LLM positions.
        ear: Turns sound into LLM positions with the two.
        max_new_tokens: Maximum length of an answer by default.
    """

    llm_source: str
    tokenizer: PreTrainedTokenizerBase
    encoder: SpeechEncoder
    adaptor: Adaptor
    ear: Ear
    max_new_tokens: int
    _reference: ReferenceLLM

    def __init__(self) -> None:
        super().__init__()
        self._shared = SharedLogits()

    @property
    def reference(self) -> ReferenceLLM:
        """The LLM as it was before tuning; available once the weights are loaded."""
        return self._reference

    def train(self, mode: bool = True) -> Self:
        """Sets train or eval mode; a part without a trainable parameter stays in eval mode (dropout off).

        So do frozen batch norms in a part that has some: their running statistics are no more trained than they are.
        """
        super().train(mode)
        for part in filter(None, (self.encoder, self.adaptor, self.llm)):
            counting = (m for m in part.modules() if getattr(m, "track_running_stats", False))
            for module in (part, *counting):
                if not any(p.requires_grad for p in module.parameters()):
                    module.eval()
        return self

    # ------------------------------------------------------------------ hearing and reading

    def encode_speech(self, features: Tensor, lengths: Tensor) -> tuple[Tensor, Tensor]:
        """Turns features (N, C, F) into encoder frames (N, T, D) and lengths; a frozen encoder leaves no graph."""
        return self.ear.encode(self, features, lengths)

    def speech_embeddings(self, batch: Batch) -> tuple[Tensor, Tensor]:
        """Returns the batch's clips as LLM input embeddings (N, P, H) and their real lengths (N,)."""
        return self.ear.positions(self, batch)

    def embed(self, batch: Batch) -> dict[str, Tensor]:
        """Returns what a causal LM takes: ``inputs_embeds`` (B, T, H), ``attention_mask`` and ``labels`` (B, T)."""
        return self.ear.embed(self, batch)

    # ------------------------------------------------------------------ predicting

    def answer_logits(self, batch: Batch) -> AnswerLogits:
        """Predicts the answers of a batch, in the context that the tuning sets up for it."""
        return self._shared.of(batch, self._predict)

    def _predict(self, batch: Batch) -> AnswerLogits:
        with self.tuning.reading(batch.audio_mask):
            return predict_answers(self.llm, **self.embed(batch))

    def answer_losses(self, batch: Batch) -> tuple[Tensor, Tensor]:
        """Returns the summed answer loss (B,) in nats and the number of answer tokens (B,) of each row."""
        return cross_entropies(self.answer_logits(batch))

    def untouched_losses(self, batch: Batch) -> tuple[Tensor, Tensor]:
        """Returns :meth:`answer_losses` of a text batch under the LLM as it was before tuning."""
        return cross_entropies(self.reference.untouched_logits(batch))

    def way_back(self) -> Change:
        """Returns what training has changed in the LLM so far; part of it can be undone in place."""
        return self.tuning.way_back(self.llm, self.reference.copy)

    @torch.no_grad()
    def read(self, batch: Batch) -> ReadBatch:
        """Reads a batch once, for the losses on its answers and for generating answers to the same prompts.

        The prefix common to all rows is read only once; the losses equal :meth:`answer_losses` up to rounding.
        """
        inputs, audio = self.embed(batch), batch.audio_mask
        alike = alike_positions(batch.input_ids, batch.attention_mask, audio, batch.labels)
        one_kind = len(set(batch.modality)) == 1  # a gate may be open for speech and closed for text
        with self.tuning.reading(audio[:1]):
            beginning = read_beginning(self.llm, inputs["inputs_embeds"], alike if one_kind else 0)
        with self.tuning.reading(audio if beginning is None else audio[:, alike:]):
            found, cache = read_answers(self.llm, **inputs, keep=batch.continues, beginning=beginning)
        losses, tokens = cross_entropies(found)
        prefix = prefix_of(self.llm, cache, batch.attention_mask, batch.labels, found) if batch.continues else None
        return ReadBatch(losses, tokens, None if prefix is None else partial(self._continue, batch, prefix))

    def _continue(self, batch: Batch, prefix: Prefix, rows: Sequence[int], max_new_tokens: int | None) -> list[str]:
        stops = stop_ids(self.llm, self.tokenizer, batch.end_id)
        chosen = prefix.select(torch.tensor(rows, device=prefix.rows.device))
        length = max_new_tokens or self.max_new_tokens
        written = continued(
            self.llm, chosen, stops, length, lambda places: self.tuning.reading(batch.audio_mask[places])
        )
        return answer_texts(written, self.tokenizer, stops)

    def divergences(self, batch: Batch) -> ItemDivergences:
        """Returns forgetting and misalignment of each row of a batch with text twins."""
        return item_divergences(self, batch)

    # ------------------------------------------------------------------ answering

    @torch.no_grad()
    def write(self, batch: Batch, max_new_tokens: int | None = None) -> Written:
        """Generates greedy answers, one per row, to spoken and written questions; reports which of them ended.

        Args:
            batch: A left-padded prompt batch.
            max_new_tokens: Maximum length of an answer; by default the module's own setting.
        """
        inputs = self.embed(batch)
        embeds, mask = inputs["inputs_embeds"], inputs["attention_mask"]
        length = max_new_tokens or self.max_new_tokens
        with self.tuning.reading(batch.audio_mask):
            return greedy_tokens(self.llm, self.tokenizer, embeds, mask, length, batch.end_id)

    def generate(self, batch: Batch, max_new_tokens: int | None = None) -> list[str]:
        """Returns the texts of :meth:`write`."""
        return self.write(batch, max_new_tokens).texts

    def predict_step(self, batch: Batch, batch_idx: int, dataloader_idx: int = 0) -> list[dict[str, str]]:
        """Returns one record per row: id, modality and the greedy answer."""
        answers = self.generate(batch)
        rows = zip(batch.ids, batch.modality, answers, strict=True)
        return [{"id": i, "modality": m, "prediction": a} for i, m, a in rows]

    @torch.no_grad()
    def generate_untouched(self, batch: Batch, max_new_tokens: int | None = None) -> list[str]:
        """Returns greedy answers of the LLM as it was before tuning, to a left-padded batch of written questions."""
        with self.reference.active() as llm:
            embeds = text_embeddings(llm, batch.input_ids)
            length = max_new_tokens or self.max_new_tokens
            return greedy_tokens(llm, self.tokenizer, embeds, batch.attention_mask, length, batch.end_id).texts

    def writing_greedily(self, end_id: int | None = None) -> AbstractContextManager[None]:
        """Makes the LLM's own ``generate`` greedy within the context, with answers that may end with ``end_id``."""
        return greedily(self.llm, self.tokenizer, stop_ids(self.llm, self.tokenizer, end_id))

    @staticmethod
    def find_pretrained(source: str) -> str:
        """Returns a hub id, a folder, or the folder of an ``asset:`` name, for callbacks that load another model."""
        return resolve(source)
