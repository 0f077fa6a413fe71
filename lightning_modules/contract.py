"""What the parts of the model side know of each other: a batch, the speech LLM, and what one part needs of another.

Objectives and tuning strategies work on the model, and the model is made of them: they know it by the protocols here,
so that no file needs one that needs it. A batch is made by the data side, which this side does not import either.
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

    ``datamodules.Batch`` is one; whatever else makes batches for this model gives them these attributes.
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

        F is 0 where ``inputs`` has what is heard.
        """

    @property
    def feature_lengths(self) -> Tensor:
        """(N,) int64; true lengths of the clips in units of F."""

    @property
    def transcripts(self) -> Tensor:
        """(N, S) int64; token ids of what is said in the clips, -100 padded."""

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
        """What the clips are to an ear that brings its own processor, by its names; empty for any other ear."""

    @property
    def twin(self) -> Batch | None:
        """The same B questions as text, with the same answers; a row that is not known as text supervises nothing."""

    @property
    def continues(self) -> bool:
        """Whether each row's answer begins where its prompt, asked alone, ends."""

    @property
    def end_id(self) -> int | None:
        """Token that ends an answer in the chat template; None leaves it to the LLM."""

    def __len__(self) -> int:
        """Returns B."""

    def to(self, device: torch.device | str) -> Self:
        """Returns the same batch with its tensors on a device."""


class UntouchedLLM(Protocol):
    """The LLM as it was before tuning (:class:`ReferenceLLM`)."""

    resident: bool
    """Whether it is needed at every step, so that :meth:`release` keeps a copy."""

    @property
    def fingerprint(self) -> str:
        """Names the untouched weights."""

    def active(self) -> AbstractContextManager[Any]:
        """Returns the LLM in eval mode, without gradients, while the context lasts."""

    def copy(self) -> Any:
        """Returns a frozen copy."""

    def untouched_logits(self, batch: Batch) -> AnswerLogits:
        """Predicts the answers of a text batch."""

    def release(self) -> None:
        """Frees the memory of the copy, unless it is resident."""


class SpeechModel(Protocol):
    """What objectives, penalties and tuning strategies need of the model they work on (:class:`SpeechLLM`)."""

    llm: Any
    """The causal LM as transformers has it, once the weights are loaded."""
    llm_source: str
    """Hub id, folder or ``asset:`` name that it came from."""
    tokenizer: PreTrainedTokenizerBase

    @property
    def ear(self) -> ListeningParts:
        """What hears with encoder and adaptor."""

    @property
    def encoder(self) -> SpeechEncoder:
        """The speech encoder."""

    @property
    def adaptor(self) -> Adaptor:
        """What maps the encoder's frames to LLM positions."""

    @property
    def reference(self) -> UntouchedLLM:
        """The LLM as it was before tuning."""

    @property
    def trainer(self) -> Trainer:
        """The Trainer of the fit, with the data module."""

    @property
    def device(self) -> torch.device:
        """Where the weights are."""

    def parameters(self) -> Iterator[nn.Parameter]:
        """Returns all parameters of encoder, adaptor, LLM and objectives."""

    def embed(self, batch: Batch) -> dict[str, Tensor]:
        """Gives ``inputs_embeds`` (B, T, H), ``attention_mask`` and ``labels`` (B, T) of a batch."""

    def speech_embeddings(self, batch: Batch) -> tuple[Tensor, Tensor]:
        """Returns the clips as LLM input embeddings (N, P, H), and their real lengths (N,)."""

    def answer_logits(self, batch: Batch) -> AnswerLogits:
        """Predicts the answers of a batch."""

    def answer_losses(self, batch: Batch) -> tuple[Tensor, Tensor]:
        """Returns the summed answer loss (B,) in nats and the number of answer tokens (B,) of each row."""


class ListeningParts(Protocol):
    """The ear of a model, as what saves it needs it (:class:`Ear`)."""

    of_audio_llm: bool
    """Whether the LLM is a part of an audio LLM, which an export must hold as a whole."""

    def whole(self, llm: Any) -> Any:
        """Returns the model of transformers that an export holds."""

    def save(self, folder: Path, model: SpeechModel) -> None:
        """Writes what hears into an export's folder."""


class Need(NamedTuple):
    """What an objective or penalty needs of the tuning strategy, or a strategy of one of the objectives at least.

    Attributes:
        trait: Name of an attribute of the other that must be true; one that it has not is false.
        refusal: Why it makes no sense without, and what is allowed; ``{owner}`` and ``{other}`` are the class names.
    """

    trait: str
    refusal: str
