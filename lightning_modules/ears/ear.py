"""The contract of an ear: what turns the sound of a batch into positions of the LLM."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from transformers import PreTrainedTokenizerBase

from ..contract import Batch, SpeechModel
from ..llm.own_lora import OwnLoRA
from .front_end import FrontEnd


class Ear(ABC):
    """Turns sound into LLM inputs for a model.

    It registers no weights: these are in the model's ``encoder`` and ``adaptor``, where tuning, checkpoints and exports
    find them under the same names whatever the ear.
    """

    #: Whether the LLM is a part of an audio LLM, which an export must hold as a whole.
    of_audio_llm: bool = False

    @property
    def adaptor_is_new(self) -> bool:
        """Whether the adaptor begins with random weights."""
        return False

    def needs_whole(self) -> str | None:
        """Names what of this ear cannot work with sharded weights (``FSDP2``); None if everything can.

        Not abstract: an ear of one's own is refused there until it says otherwise.
        """
        return type(self).__name__

    @abstractmethod
    def parts(self, encoder: nn.Module | None, adaptor: nn.Module | None) -> tuple[Any, Any]:
        """Returns the modules of the model that hear, which may be empty as long as no weights are loaded.

        Args:
            encoder: As the config gives it.
            adaptor: As the config gives it.

        Raises:
            ValueError: If the ear needs one, or has its own.
        """

    @abstractmethod
    def tokenizer(self, llm: str) -> PreTrainedTokenizerBase:
        """Loads the tokenizer of the LLM, with the chat template of conversations that may hold speech.

        Args:
            llm: Hub id, folder or ``asset:`` name, as ``model.llm`` gives it.

        Raises:
            ValueError: If it cannot be had, or this ear cannot hear for such a model.
        """

    @abstractmethod
    def open(self, source: str, dtype: torch.dtype, **options: Any) -> Any:
        """Loads the causal LM that is trained.

        Args:
            source: Hub id or folder.
            dtype: Of the weights.
            **options: Of ``from_pretrained``.
        """

    def brought_lora(self) -> Mapping[str, OwnLoRA]:
        """Gives LoRA that the model came with, for sound alone, by the names of the LLM's matrices; once it is open."""
        return {}

    @abstractmethod
    def untouched(self, source: str, dtype: torch.dtype) -> Any:
        """Loads the same causal LM again, by itself."""

    @abstractmethod
    def front_end(self, model: SpeechModel, text_twins: bool) -> FrontEnd:
        """Returns what a data module needs to know; also before any weights are loaded.

        Args:
            model: That hears with it.
            text_twins: Whether speech rows must come with their text twins.
        """

    @abstractmethod
    def begin(self, model: SpeechModel) -> None:
        """Gives encoder and adaptor their weights, once the LLM has its own."""

    @abstractmethod
    def encode(self, model: SpeechModel, features: Tensor, lengths: Tensor) -> tuple[Tensor, Tensor]:
        """Turns features (N, C, F) of true lengths (N,) into encoder frames (N, T, D) and their lengths (N,)."""

    @abstractmethod
    def positions(self, model: SpeechModel, batch: Batch) -> tuple[Tensor, Tensor]:
        """Returns the batch's clips as LLM input embeddings (N, P, H) and their real lengths (N,)."""

    @abstractmethod
    def embed(self, model: SpeechModel, batch: Batch) -> dict[str, Tensor]:
        """Returns what a causal LM takes: ``inputs_embeds`` (B, T, H), ``attention_mask`` and ``labels`` (B, T)."""

    @abstractmethod
    def whole(self, llm: Any) -> Any:
        """Returns the model of transformers that an export holds: the LLM, or the audio LLM around it."""

    @abstractmethod
    def save(self, folder: Path, model: SpeechModel) -> None:
        """Writes what hears into an export's folder, in which the LLM and its tokenizer lie already."""
