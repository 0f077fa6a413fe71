"""What the model's parts know about each other: a batch, the speech LLM, and what one part needs from another.

Objectives and tuning strategies work on the model, and the model is made of them: they know it through these protocols,
which avoids circular imports. Batches are made by the data side, which is not imported here either.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any, NamedTuple, Protocol, Self

import torch
from lightning.pytorch import Trainer
from torch import Tensor, nn
from transformers import PreTrainedTokenizerBase

from .ears.adaptors import Adaptor
from .ears.encoders import SpeechEncoder
from .losses.answer_loss import AnswerLogits


class Batch(Protocol):
    """Rows of spoken and written questions; B rows of T positions, N clips of F frames.

    ``datamodules.Batch`` is one; any other batches for this model need these attributes.
    """

    @property
    def input_ids(self) -> Tensor:
        """(B, T) int64; the pad id at audio and padding positions."""

    @property
    def attention_mask(self) -> Tensor:
        """(B, T) int64; 1 on text and audio, 0 on padding."""

    @property
    def labels(self) -> Tensor:
        """(B, T) int64, unshifted as in transformers; -100 on prompt, audio and padding."""

    @property
    def audio_mask(self) -> Tensor:
        """(B, T) bool; true where a position of the adaptor goes."""

    @property
    def features(self) -> Tensor:
        """(N, C, F) float32, the clips in the order in which their positions occur; N is 0 without speech.

        F is 0 where ``inputs`` holds the sound.
        """

    @property
    def feature_lengths(self) -> Tensor:
        """(N,) int64; true lengths of the clips in units of F."""

    @property
    def transcripts(self) -> Tensor:
        """(N, S) int64; token ids of the clips' transcripts, padded with -100."""

    @property
    def ids(self) -> list[str]:
        """The B rows' example ids."""

    @property
    def modality(self) -> Sequence[str]:
        """``speech`` or ``text`` of each of the B rows."""

    @property
    def encoded(self) -> bool:
        """Whether ``features`` are outputs of the frozen encoder (C its width)."""

    @property
    def inputs(self) -> dict[str, Tensor]:
        """Tensors of the clips, by name, for an ear that brings its own processor; empty for any other ear."""

    @property
    def twin(self) -> Batch | None:
        """The same B questions as text, with the same answers; a row without known text supervises nothing."""

    @property
    def continues(self) -> bool:
        """Whether each row's answer begins where its prompt, tokenized alone, ends."""

    @property
    def end_id(self) -> int | None:
        """Token that ends an answer in the chat template; None leaves it to the LLM."""

    def __len__(self) -> int:
        """Returns the number of rows B."""

    def to(self, device: torch.device | str) -> Self:
        """Moves the batch's tensors to a device."""


class UntouchedLLM(Protocol):
    """The LLM as it was before tuning (:class:`ReferenceLLM`)."""

    resident: bool
    """Whether it is needed at every step, so that :meth:`release` keeps a copy."""

    @property
    def fingerprint(self) -> str:
        """Names the untouched weights."""

    def active(self) -> AbstractContextManager[Any]:
        """Provides the LLM in eval mode, without gradients, within the context."""

    def copy(self) -> Any:
        """Returns a frozen copy."""

    def untouched_logits(self, batch: Batch) -> AnswerLogits:
        """Predicts the answers of a text batch."""

    def release(self) -> None:
        """Frees the memory of the copy, unless it is resident."""


class SpeechModel(Protocol):
    """What objectives, penalties and tuning strategies need from the model they work on (:class:`SpeechLLM`)."""

    llm: Any
    """The transformers causal LM, once the weights are loaded."""
    llm_source: str
    """Hub id, folder or ``asset:`` name it was loaded from."""
    tokenizer: PreTrainedTokenizerBase

    @property
    def ear(self) -> ListeningParts:
        """Turns sound into LLM positions with encoder and adaptor."""

    @property
    def encoder(self) -> SpeechEncoder:
        """The speech encoder."""

    @property
    def adaptor(self) -> Adaptor:
        """Maps the encoder's frames to LLM positions."""

    @property
    def reference(self) -> UntouchedLLM:
        """The LLM as it was before tuning."""

    @property
    def trainer(self) -> Trainer:
        """The Trainer of the fit, with the data module."""

    @property
    def device(self) -> torch.device:
        """The device of the weights."""

    def parameters(self) -> Iterator[nn.Parameter]:
        """Returns all parameters of encoder, adaptor, LLM and objectives."""

    def embed(self, batch: Batch) -> dict[str, Tensor]:
        """Returns ``inputs_embeds`` (B, T, H), ``attention_mask`` and ``labels`` (B, T) of a batch."""

    def speech_embeddings(self, batch: Batch) -> tuple[Tensor, Tensor]:
        """Returns the clips as LLM input embeddings (N, P, H), and their real lengths (N,)."""

    def answer_logits(self, batch: Batch) -> AnswerLogits:
        """Predicts the answers of a batch."""

    def answer_losses(self, batch: Batch) -> tuple[Tensor, Tensor]:
        """Returns the summed answer loss (B,) in nats and the number of answer tokens (B,) of each row."""


class ListeningParts(Protocol):
    """The ear of a model, as saving needs it (:class:`Ear`)."""

    of_audio_llm: bool
    """Whether the LLM is part of an audio LLM, which an export must contain as a whole."""

    def whole(self, llm: Any) -> Any:
        """Returns the transformers model that an export contains."""

    def save(self, folder: Path, model: SpeechModel) -> None:
        """Writes the speech parts into an export's folder."""


class Need(NamedTuple):
    """What an objective or penalty needs from the tuning strategy, or a strategy from at least one objective.

    Attributes:
        trait: Name of an attribute of the other that must be true; a missing one counts as false.
        refusal: Why it makes no sense without it, and what is allowed; ``{owner}`` and ``{other}`` are the class names.
    """

    trait: str
    refusal: str
