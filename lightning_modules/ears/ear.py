"""The contract of an ear: what turns the sound of a batch into positions of the LLM."""

from __future__ import annotations

from abc import ABC, abstractmethod

from torch import Tensor

from ..contract import Batch, SpeechModel
from .front_end import FrontEnd


class Ear(ABC):
    """Hears for a model.

    It holds no weights: these are in the model's ``encoder`` and ``adaptor``, where tuning, checkpoints and exports
    find them under the same names whatever the ear.
    """

    @abstractmethod
    def front_end(self, model: SpeechModel, text_twins: bool) -> FrontEnd:
        """Gives what a data module needs to know; also before any weights are loaded.

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
        """Gives the batch's clips as LLM input embeddings (N, P, H) and their real lengths (N,)."""

    @abstractmethod
    def embed(self, model: SpeechModel, batch: Batch) -> dict[str, Tensor]:
        """Gives what a causal LM takes: ``inputs_embeds`` (B, T, H), ``attention_mask`` and ``labels`` (B, T)."""
