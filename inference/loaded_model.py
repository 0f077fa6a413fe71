"""A model in use: it answers, and its losses and importance can be measured."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from itertools import chain
from typing import TYPE_CHECKING, Any, overload

import numpy as np
import torch

from ..datamodules import Batch, Example
from ..datamodules.sources.example import Modality
from ..datamodules.sources.named import SourceName
from ..foundation.errors import UserError
from ..importance import DEFAULT_ESTIMATORS, Snapshot, probe
from ..importance.progress import Progress, counted, silent
from .batching import causal_inputs, make_batches
from .examples import read_examples
from .origin import Origin
from .questions import Sound, Sounds, Texts, questions
from .text_llm import TextLLM

LISTENERS = "text, an audio LLM, or a TextKeep run"

if TYPE_CHECKING:
    from ..lightning_modules import SpeechLLM
    from ..lightning_modules.llm.generation import Written


@dataclass(repr=False)
class LoadedModel:
    """What :func:`textkeep.inference.load` gives: a causal LM, with the ears that it has learned to use.

    Attributes:
        model: The ``SpeechLLM`` of a run or an audio LLM, or a text LLM; in eval mode.
        origin: Its name, run, checkpoint and prompt settings.
    """

    model: SpeechLLM | TextLLM
    origin: Origin

    def __repr__(self) -> str:
        """Says in one line what is loaded, from where, and on which device."""
        step = "" if self.origin.step is None else f", step {self.origin.step}"
        return f"<{self.origin.name}: {type(self.model).__name__} on {self.llm.device}{step}>"

    @property
    def llm(self) -> Any:
        """The causal LM (a transformers model)."""
        return self.model.llm

    @property
    def front_end(self) -> Any:
        """Tokenizer and features (``datamodules.SpeechFrontEnd``)."""
        return self.model.front_end

    @property
    def speech_llm(self) -> SpeechLLM | None:
        """The speech LLM around the LLM; None for a text LLM."""
        return None if isinstance(self.model, TextLLM) else self.model

    @overload
    def ask(
        self,
        text: str | None = None,
        audio: Sound | None = None,
        *,
        sampling_rate: int = 16000,
        max_new_tokens: int | None = None,
        batch_size: int = 8,
    ) -> str: ...

    @overload
    def ask(
        self,
        text: str | Texts | None = None,
        audio: Sounds | None = None,
        *,
        sampling_rate: int = 16000,
        max_new_tokens: int | None = None,
        batch_size: int = 8,
    ) -> list[str]: ...

    def ask(
        self,
        text: str | Texts | None = None,
        audio: Sound | Sounds | None = None,
        *,
        sampling_rate: int = 16000,
        max_new_tokens: int | None = None,
        batch_size: int = 8,
    ) -> str | list[str]:
        """Answers greedily, with the run's own prompts.

        Args:
            text: A written question, or a list of them. With ``audio``: what to do with the clips, in place of the
                run's own instruction (one text).
            audio: A spoken question, or a list of them: the path of a sound file, or samples (n,) or (n, channels) as
                an array or tensor: floats in [-1, 1], or 16- or 32-bit integers.
            sampling_rate: Of arrays and tensors, in Hz; files state their own.
            max_new_tokens: Maximum length of an answer; by default the model's own setting.
            batch_size: Questions per batch.

        Returns:
            One answer (str) for one question, a list of answers for a list.

        Raises:
            UserError: If nothing is asked, or the model cannot listen.
            BadExampleError: If a clip cannot be used.
        """
        asked = questions(text, audio, sampling_rate)
        answers = self.write(asked.examples, asked.modality, max_new_tokens, batch_size, asked.instruction)
        texts = [text for written in answers for text in written.texts]
        return texts[0] if asked.alone else texts

    def write(
        self,
        examples: Sequence[Example],
        modality: Modality,
        max_new_tokens: int | None = None,
        batch_size: int = 8,
        prompts: Mapping[str, Any] | None = None,
    ) -> Iterator[Written]:
        """Generates greedy answers batch by batch, in the order of the examples, and reports which of them ended.

        Args:
            examples: With questions in this modality.
            modality: ``text`` or ``speech``.
            max_new_tokens: Maximum length of an answer; by default the model's own setting.
            batch_size: Questions per batch.
            prompts: Prompt settings that replace the run's.

        Raises:
            UserError: If the model cannot listen.
        """
        for batch in self.batches(examples, modality, batch_size, answers=False, prompts=prompts):
            yield self.model.write(batch, max_new_tokens)

    def losses(
        self,
        examples: Sequence[Example] | SourceName,
        modality: Modality = "text",
        *,
        count: int | None = None,
        batch_size: int = 8,
    ) -> np.ndarray:
        """Measures the loss on the target of each example.

        Args:
            examples: Examples, or where they are: a manifest, ``spoken-facts/SPLIT`` or a source.
            modality: How they are asked: ``text`` or ``speech``.
            count: Only this many of them, as :func:`textkeep.inference.read_examples` chooses and orders them.
            batch_size: Examples per batch.

        Returns:
            (N,) nats, the mean over an example's answer tokens.

        Raises:
            UserError: If the model cannot listen, or the examples lack the modality.
        """
        found = self.summed_losses(read_examples(examples, modality, count), modality, batch_size=batch_size)
        return np.array([loss / tokens for _, loss, tokens in found])

    def summed_losses(
        self, examples: Sequence[Example], modality: Modality = "text", *, batch_size: int = 8
    ) -> list[tuple[str, float, int]]:
        """Measures the loss on the target of each example and counts its tokens.

        Args:
            examples: With questions in this modality.
            modality: How they are asked.
            batch_size: Examples per batch.

        Returns:
            Id, summed nats and answer tokens of each example, in their order.

        Raises:
            UserError: If the model cannot listen.
        """
        found: list[tuple[str, float, int]] = []
        with torch.inference_mode():
            for batch in self.batches(examples, modality, batch_size):
                sums, tokens = self.model.answer_losses(batch)
                found += zip(batch.ids, sums.double().tolist(), tokens.tolist(), strict=True)
        return found

    def probe(
        self,
        examples: Sequence[Example] | SourceName,
        modality: Modality = "text",
        estimators: Sequence[str] = DEFAULT_ESTIMATORS,
        *,
        count: int | None = None,
        batch_size: int = 8,
        tokens: int | None = None,
        progress: Progress = silent,
        **options: Any,
    ) -> Snapshot:
        """Measures the importance of the LLM's weights for the answers of examples.

        For a run, this equals what :class:`textkeep.callbacks.ImportanceTracker` measured at that step on the same
        examples.

        Args:
            examples: Examples, or where they are: a manifest, ``spoken-facts/SPLIT`` or a source.
            modality: How they are asked: ``text`` or ``speech``.
            estimators: What to measure.
            count: Only this many of them, chosen like a probe of the run (``data.probes``).
            batch_size: Examples per batch.
            tokens: Plain text is cut after this many.
            progress: Receives how many batches are done, and how many groups were removed.
            **options: Fields of :class:`textkeep.importance.ProbeOptions`, and ``step`` and ``name`` for the record.

        Raises:
            UserError: If the model cannot listen, the examples lack the modality, or no single matrix per layer acts on
                them.
        """
        with self.measuring(modality):
            chosen = read_examples(examples, modality, count)
            starts = counted(range(0, len(chosen), batch_size), "measuring", progress)
            parts = (self.inputs(chosen[start : start + batch_size], modality, batch_size, tokens) for start in starts)
            told = {"step": self.origin.step, "progress": progress, **options}
            return probe(self.llm, chain.from_iterable(parts), estimators, **told)

    def measuring(self, modality: Modality) -> AbstractContextManager[None]:
        """Activates the weights that questions of this modality use, for a measurement of the bare LLM.

        Raises:
            UserError: If the model cannot listen, or no single matrix per layer acts on them, because a gate opens only
                at some positions.
        """
        if self.speech_llm is None and modality == "text":
            return nullcontext()
        if (context := self.require_speech_llm().tuning.measuring(modality)) is None:
            raise UserError(
                f"{self.origin.name}: its LoRA acts on some positions only, so {modality} meets no one matrix a layer; "
                "allowed: text, or a run whose gate opens for whole turns (SpeechTurns)"
            )
        return context

    def inputs(
        self, examples: Sequence[Example], modality: Modality, batch_size: int = 8, tokens: int | None = None
    ) -> Iterator[dict[str, Any]]:
        """Builds a causal LM's input batches: text (plain text cut after ``tokens``) as ids, speech as embeddings.

        Raises:
            UserError: If the model cannot listen.
        """
        for batch in self.batches(examples, modality, batch_size, tokens=tokens):
            yield causal_inputs(batch, self.speech_llm)

    def require_speech_llm(self) -> SpeechLLM:
        """Returns the listener.

        Raises:
            UserError: If the model is a text LLM.
        """
        if self.speech_llm is None:
            why = f": {self.origin.deaf}; allowed: text" if self.origin.deaf else f"; allowed: {LISTENERS}"
            raise UserError(f"{self.origin.name} cannot listen{why}")
        return self.speech_llm

    def batches(
        self,
        examples: Sequence[Example],
        modality: Modality,
        batch_size: int,
        answers: bool = True,
        prompts: Mapping[str, Any] | None = None,
        tokens: int | None = None,
    ) -> Iterator[Batch]:
        """Makes batches on the model's device.

        Args:
            examples: With questions in this modality.
            modality: ``text`` or ``speech``.
            batch_size: Rows of a batch.
            answers: With answers, right padded; else prompts alone, left padded.
            prompts: Prompt settings that replace the run's.
            tokens: Plain text is cut after so many.

        Raises:
            UserError: If the model cannot listen.
        """
        if modality == "speech":
            self.require_speech_llm()
        options = {**self.origin.data_options, **(prompts or {})}
        made = make_batches(self.front_end, options, examples, modality, batch_size, answers=answers, tokens=tokens)
        for batch in made:
            yield batch.to(self.llm.device)
