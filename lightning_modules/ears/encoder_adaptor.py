"""The ear of a text LLM that learns to listen: a speech encoder, and an adaptor between its frames and the LLM."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save
from torch import Tensor, nn
from transformers import AutoModelForCausalLM, PreTrainedTokenizerBase

from ...foundation.assets import resolve
from ..contract import Batch, SpeechModel
from ..llm.opening import refuse_audio_llm, refuse_token_reader
from ..llm.pretrained import load_pretrained
from ..llm.vocabulary import load_tokenizer
from ..losses.answer_loss import splice, zero_through
from ..saving.adaptor_file import ADAPTOR, ENCODER, encoder_trained, save_adaptor
from .adaptor_start import begin_adaptor
from .ear import Ear
from .front_end import FrontEnd


class EncoderAdaptor(Ear):
    """Hears with a pretrained encoder and an adaptor that learns (LLaMA-Omni, arXiv 2409.06666).

    Args:
        adaptor_weights: Safetensors file or ``asset:`` name to start the adaptor from.

    Raises:
        FileNotFoundError: If the asset is not there: before anything is loaded.
    """

    def __init__(self, adaptor_weights: str | None = None) -> None:
        self.adaptor_weights = None if adaptor_weights is None else Path(resolve(adaptor_weights))

    @property
    def adaptor_is_new(self) -> bool:
        """Whether no file gives the adaptor's weights."""
        return self.adaptor_weights is None

    def needs_whole(self) -> str | None:
        """Names nothing: encoder and adaptor are sharded as the LLM is."""
        return None

    def parts(self, encoder: nn.Module | None, adaptor: nn.Module | None) -> tuple[Any, Any]:
        """Returns the two as they are.

        Raises:
            ValueError: If one is missing.
        """
        if encoder is None or adaptor is None:
            missing = "encoder" if encoder is None else "adaptor"
            raise ValueError(
                f"model.{missing}: a text LLM hears with an encoder and an adaptor; allowed: its class, or "
                "model.ear: OwnEar where model.llm is an audio LLM"
            )
        return encoder, adaptor

    def tokenizer(self, llm: str) -> PreTrainedTokenizerBase:
        """Loads the LLM's own."""
        tokenizer = load_tokenizer(llm)
        refuse_audio_llm(llm)
        refuse_token_reader(llm)
        return tokenizer

    def open(self, source: str, dtype: torch.dtype, **options: Any) -> Any:
        """Loads a text LLM."""
        return load_pretrained(AutoModelForCausalLM, source, dtype, **options)

    def untouched(self, source: str, dtype: torch.dtype) -> Any:
        """Loads the text LLM again."""
        return self.open(source, dtype)

    def front_end(self, model: SpeechModel, text_twins: bool) -> FrontEnd:
        """Returns what a data module needs to know; needs no weights."""
        rows = None if model.llm is None else model.llm.get_input_embeddings().weight.shape[0]
        return FrontEnd.of(model.tokenizer, model.encoder, model.adaptor, text_twins, rows)

    def begin(self, model: SpeechModel) -> None:
        """Loads the encoder and sizes the adaptor between it and the LLM."""
        model.encoder.load()
        begin_adaptor(model.adaptor, model.encoder, model.llm, len(model.tokenizer), self.adaptor_weights)

    def encode(self, model: SpeechModel, features: Tensor, lengths: Tensor) -> tuple[Tensor, Tensor]:
        """Turns features (N, C, F) into encoder frames (N, T, D) and lengths; a frozen encoder leaves no graph."""
        encoder = model.encoder
        trainable = any(p.requires_grad for p in encoder.parameters())
        device = next(encoder.parameters()).device  # clips for the feature cache come from the CPU
        with torch.set_grad_enabled(torch.is_grad_enabled() and trainable):
            return encoder(features.to(device), lengths.to(device))

    def positions(self, model: SpeechModel, batch: Batch) -> tuple[Tensor, Tensor]:
        """Returns the batch's clips as LLM input embeddings (N, P, H) and their real lengths (N,)."""
        if batch.encoded:
            cached = batch.features.to(next(model.adaptor.parameters()).dtype)  # float32 on disk
            frames, lengths = cached.transpose(1, 2), batch.feature_lengths
        else:
            frames, lengths = self.encode(model, batch.features, batch.feature_lengths)
        return model.adaptor(frames, lengths)

    def embed(self, model: SpeechModel, batch: Batch) -> dict[str, Tensor]:
        """Splices the adaptor's positions between the embeddings of the text."""
        embeds = model.llm.get_input_embeddings()(batch.input_ids)
        if batch.features.shape[0]:
            speech, lengths = self.positions(model, batch)
            embeds = splice(embeds, speech, lengths, batch.audio_mask)
        elif torch.is_grad_enabled():
            embeds = embeds + zero_through([model.encoder, model.adaptor], embeds)
        return {"inputs_embeds": embeds, "attention_mask": batch.attention_mask, "labels": batch.labels}

    def whole(self, llm: Any) -> Any:
        """Returns the LLM."""
        return llm

    def save(self, folder: Path, model: SpeechModel) -> None:
        """Writes the adaptor, and the encoder if it trained."""
        (folder / ADAPTOR.parent).mkdir()
        words = model.llm.get_input_embeddings().weight
        save_adaptor(folder / ADAPTOR, model.adaptor, model.encoder, model.llm_source, torch.float32, words)
        if encoder_trained(model.encoder):
            weights = {name: tensor.detach().cpu().contiguous() for name, tensor in model.encoder.state_dict().items()}
            (folder / ENCODER).write_bytes(save(weights, {"format": "pt"}))  # save_file() would make it private
