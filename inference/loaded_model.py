"""A model in use: it answers, its losses are taken, its importance is measured."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from ..datamodules import Batch, Example, SpeechTextData
from ..datamodules.sources.example import Modality
from ..foundation.errors import UserError
from ..foundation.run_names import CHECKPOINTS
from ..importance import DEFAULT_ESTIMATORS, Snapshot, probe
from .questions import Sound, questions
from .run_settings import PROMPT_OPTIONS

if TYPE_CHECKING:
    from ..lightning_modules import SpeechLLM
    from ..lightning_modules.llm.generation import Written

LONGEST_ANSWER = 32
"""New tokens of a text LLM that comes with no setting of its own."""


@dataclass
class LoadedModel:
    """A causal LM, with the ears that it has learned to use if it comes from a run.

    Made by :func:`textkeep.inference.load`.

    Attributes:
        name: As the user gave it.
        llm: The causal LM, in eval mode.
        front_end: Tokenizer and features.
        speech_llm: What listens around the LLM; None for a text LLM.
        settings: Data settings of the run it came from.
        checkpoint: File of the run that the weights came from.
    """

    name: str
    llm: Any
    front_end: Any
    speech_llm: SpeechLLM | None = None
    settings: Mapping[str, Any] = field(default_factory=dict)
    checkpoint: Path | None = None

    @property
    def run(self) -> Path | None:
        """The run directory that the model came from."""
        folder = self.checkpoint.parent if self.checkpoint else None
        return folder.parent if folder is not None and folder.name == CHECKPOINTS else None

    @property
    def prompts(self) -> dict[str, Any]:
        """Prompt settings of the run it came from."""
        return {key: self.settings[key] for key in PROMPT_OPTIONS if self.settings.get(key) is not None}

    def ask(
        self,
        text: str | Sequence[str] | None = None,
        audio: Sound | Sequence[Sound] | None = None,
        *,
        sampling_rate: int = 16000,
        max_new_tokens: int | None = None,
        batch_size: int = 8,
    ) -> Any:
        """Answers greedily, as the run's own prompts ask.

        Args:
            text: A written question, or several. With ``audio``: what to do with the clips, in place of the run's own
                instruction (one text).
            audio: A spoken question, or several: the path of a sound file, or samples (n,) or (n, channels) in [-1, 1]
                as an array or tensor.
            sampling_rate: Of arrays and tensors, in Hz.
            max_new_tokens: Longest answer; default the model's own setting.
            batch_size: Questions at once.

        Returns:
            One answer (str) to one question, a list of answers to several.

        Raises:
            UserError: If nothing is asked, a clip cannot be used, or the model cannot listen.
        """
        examples, modality, instruction, one = questions(text, audio, sampling_rate)
        if modality == "speech":
            self.check_listens()
        prompts = self.prompts if instruction is None else {**self.prompts, "speech_instruction": instruction}
        found: list[str] = []
        for batch in self.batches(examples, modality, batch_size, answers=False, prompts=prompts):
            found += self.write(batch, max_new_tokens).texts
        return found[0] if one else found

    def write(self, batch: Batch, max_new_tokens: int | None = None) -> Written:
        """Writes greedy answers to a left-padded prompt batch, and tells which of them ended."""
        from ..lightning_modules.llm.generation import greedy_tokens

        batch = batch.to(self.llm.device)
        if self.speech_llm is not None:
            return self.speech_llm.write(batch, max_new_tokens)
        embeds = self.llm.get_input_embeddings()(batch.input_ids)
        longest = max_new_tokens or LONGEST_ANSWER
        tokenizer = self.front_end.tokenizer
        return greedy_tokens(self.llm, tokenizer, embeds, batch.attention_mask, longest, batch.end_id)

    def losses(self, examples: Sequence[Example], modality: Modality = "text", batch_size: int = 8) -> np.ndarray:
        """Takes the loss on the answer of each example.

        Args:
            examples: With questions in this modality.
            modality: ``text`` or ``speech``.
            batch_size: Examples at once.

        Returns:
            (N,) nats, the mean over an example's answer tokens.

        Raises:
            UserError: If the model cannot listen.
        """
        from ..lightning_modules.losses.answer_loss import answer_logits, cross_entropies

        means: list[float] = []
        with torch.inference_mode():
            for made in self.batches(examples, modality, batch_size):
                batch = made.to(self.llm.device)
                if self.speech_llm is not None:
                    sums, tokens = self.speech_llm.answer_losses(batch)
                else:
                    embeds = self.llm.get_input_embeddings()(batch.input_ids)
                    sums, tokens = cross_entropies(answer_logits(self.llm, embeds, batch.attention_mask, batch.labels))
                means += (sums / tokens).double().tolist()
        return np.array(means)

    def probe(
        self,
        examples: Sequence[Example],
        modality: Modality = "text",
        estimators: Sequence[str] = DEFAULT_ESTIMATORS,
        batch_size: int = 8,
        **options: Any,
    ) -> Snapshot:
        """Measures the importance of the LLM's weights for the answers of examples.

        Args:
            examples: With questions in this modality.
            modality: ``text`` or ``speech``.
            estimators: What to measure.
            batch_size: Examples at once.
            **options: See :class:`textkeep.importance.ProbeOptions`.

        Raises:
            UserError: If the model cannot listen, or no one matrix a layer is what such examples meet.
        """
        inputs = [self.inputs(batch) for batch in self.batches(examples, modality, batch_size)]
        with self.measuring(modality):
            return probe(self.llm, inputs, estimators, **options)

    def measuring(self, modality: Modality) -> AbstractContextManager[None]:
        """Puts in place the weights that questions of this modality meet, for a measurement of the bare LLM.

        Raises:
            UserError: If there is no one matrix a layer that they meet: a gate opens on some positions only.
        """
        if self.speech_llm is None:
            return nullcontext()
        context = self.speech_llm.tuning.measuring(modality)
        if context is None:
            raise UserError(
                f"{self.name}: its LoRA acts on some positions only, so {modality} meets no one matrix a layer; "
                "allowed: text, or a run whose gate opens for whole turns (SpeechTurns)"
            )
        return context

    def batches(
        self,
        examples: Sequence[Example],
        modality: Modality,
        batch_size: int = 8,
        *,
        answers: bool = True,
        prompts: Mapping[str, Any] | None = None,
    ) -> list[Batch]:
        """Makes CPU batches of examples: with answers right padded, as prompts alone left padded.

        Raises:
            UserError: If the model cannot listen.
        """
        if modality == "speech":
            self.check_listens()
        chosen = dict(self.prompts if prompts is None else prompts)
        if self.settings.get("max_seconds") is not None:
            chosen["max_seconds"] = self.settings["max_seconds"]
        data = SpeechTextData(**chosen)
        data.connect(self.front_end)
        return data.factory([]).batches(examples, modality, batch_size, answers=answers)

    def inputs(self, batch: Batch) -> Mapping[str, Any]:
        """Turns a batch into what a causal LM takes: text as ids, speech as embeddings; with labels and ids."""
        batch = batch.to(next(self.llm.parameters()).device)
        inputs = {"input_ids": batch.input_ids, "attention_mask": batch.attention_mask, "labels": batch.labels}
        if self.speech_llm is not None and batch.features.shape[0]:
            with torch.no_grad():
                inputs |= self.speech_llm.embed(batch)
        return {**inputs, "ids": batch.ids}

    def merge(self) -> Any:
        """Folds LoRA into the LLM's weights, in place; the names of its parameters are then the base model's.

        Returns:
            The LLM.

        Raises:
            UserError: If it cannot be folded in.
        """
        from ..lightning_modules.llm.lora_layers import merge_adapters

        if self.speech_llm is not None and not self.speech_llm.tuning.mergeable:
            raise UserError(
                f"{self.name} has adapters that act on some positions only: there are no tuned weights to compare; "
                "allowed: a run whose tuning can be merged"
            )
        merge_adapters(self.llm)
        return self.llm

    @property
    def gated(self) -> bool:
        """Whether its LoRA acts on speech only, so that text and speech meet different weights."""
        return getattr(getattr(self.speech_llm, "tuning", None), "gate", None) is not None

    def check_listens(self) -> None:
        """Refuses speech where there are no ears.

        Raises:
            UserError: If the model is a text LLM.
        """
        if self.speech_llm is None:
            raise UserError(f"{self.name} cannot listen; allowed: text, or a TextKeep run")
