"""Lengths of views in LLM positions, before a clip is read."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

import torch

from ..sources.audio import check_seconds, clip_seconds
from ..sources.bad_examples import BadExampleError, BadExamples
from .augment import Augment
from .chat_template import refusals_at
from .embedded_ids import check_embedded
from .front_end import SpeechFrontEnd
from .prompts import ChatPrompt
from .rows import View

_SHORTEST_SECONDS = 0.1


class Length(NamedTuple):
    """Positions that a view takes in its batch and in the batch of text twins beside it."""

    own: int
    twin: int = 0


class _Written(NamedTuple):
    """A text to be counted, and how many tokens come on top of it (the audio's place counts as one)."""

    text: str
    more: int


class LengthEstimator:
    """Counts text tokens exactly and audio positions from the clips' seconds.

    Args:
        front_end: The model's tokenizer and feature extraction.
        prompt: Renders the questions.
        max_seconds: Longest clip allowed.
        augment: Changes of the clips, or None; slower speech takes more positions.
    """

    def __init__(
        self, front_end: SpeechFrontEnd, prompt: ChatPrompt, max_seconds: float, augment: Augment | None = None
    ) -> None:
        self.front_end = front_end
        self.prompt = prompt
        self.max_seconds = max_seconds
        self.growth = augment.longest if augment else 1.0
        silence = torch.zeros(int(_SHORTEST_SECONDS * front_end.sampling_rate))
        # An encoder that pads to a fixed length gives a short clip as many positions as a long one.
        self._fewest = front_end.num_positions(front_end.extract(silence).shape[-1])

    def measure(
        self, views: Sequence[View], bad: BadExamples, limit: int | None = None, twins: bool = False
    ) -> tuple[list[View], list[Length]]:
        """Returns the usable views and their lengths.

        Args:
            views: What to measure.
            bad: Receives the views that the chat template refuses, that hold tokens without an embedding, whose clip is
                too long, whose header cannot be read, or that are over ``limit``.
            limit: Most positions of a view with its twin, or None.
            twins: Whether speech comes with its text twin.

        Raises:
            BadExampleError: If a view is bad and the policy is ``raise``.
        """
        written = self._all_written(views, bad, twins)
        tokens = self._ids([own for _, own, _ in written])
        twin_tokens = iter(self._ids([twin for _, _, twin in written if twin is not None]))
        kept, lengths = [], []
        for (view, own, twin), ids in zip(written, tokens, strict=True):
            beside = next(twin_tokens) if twin is not None else []
            spoken = view.modality == "speech"
            try:
                check_embedded([*ids[spoken:], *beside], self.front_end, view.example.location)  # without the audio's
                positions = self._positions(view) if spoken else 0
                length = Length(own.more + len(ids) + positions, len(beside) + (twin.more if twin is not None else 0))
                if limit is not None and sum(length) > limit:
                    detail = f"the example takes {sum(length)} positions; allowed: at most tokens_per_batch = {limit}"
                    raise BadExampleError("over the token budget", view.example.location, detail)
            except BadExampleError as error:
                bad.report(error)
                continue
            kept.append(view)
            lengths.append(length)
        return kept, lengths

    def _all_written(
        self, views: Sequence[View], bad: BadExamples, twins: bool
    ) -> list[tuple[View, _Written, _Written | None]]:
        """Returns the views that the chat template does not refuse, with their texts and those of their twins."""
        written: list[tuple[View, _Written, _Written | None]] = []
        for view in views:
            beside = View(view.example, "text") if twins and view.modality == "speech" else None
            try:
                with refusals_at(view.example.location):
                    written.append((view, self._written(view), None if beside is None else self._written(beside)))
            except BadExampleError as error:
                bad.report(error)
        return written

    def _positions(self, view: View) -> int:
        seconds = clip_seconds(view.example)
        check_seconds(view.example, seconds, self.max_seconds)
        longest = max(seconds, min(seconds * self.growth, self.max_seconds))
        # One more: the seconds of a manifest are rounded.
        return max(self._fewest, math.ceil(longest * self.front_end.positions_per_second) + 1)

    def _written(self, view: View) -> _Written:
        """Returns the text of a view.

        Raises:
            TemplateRefusalError: If the chat template refuses it.
        """
        example, modality = view
        if example.plain:
            return _Written(example.target, len(self.prompt.plain("")))
        target = example.target or None  # a template need not print a turn without a text
        if modality == "text":
            # One more than needed: a run continues with the batches that it was started with.
            return _Written(self.prompt.conversation_text(example.question, target, example.system), 1)
        before = self.prompt.speech(example.system).before
        return _Written(self.prompt.spoken_text(target, example.system), len(before) - 1)

    def _ids(self, written: Sequence[_Written]) -> list[list[int]]:
        """Tokenizes all texts in one call of the tokenizer."""
        return self.prompt.tokenize([text for text, _ in written]) if written else []
