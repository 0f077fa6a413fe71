"""Lengths of views in LLM positions, before a clip is read."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

import torch

from .audio import check_seconds, clip_seconds
from .augment import Augment
from .bad_examples import BadExampleError, BadExamples
from .front_end import SpeechFrontEnd
from .prompts import ChatPrompt
from .rows import View

_SHORTEST_SECONDS = 0.1


class Length(NamedTuple):
    """Positions that a view takes in its batch and in the batch of text twins beside it."""

    own: int
    twin: int = 0


class LengthEstimator:
    """Counts text tokens exactly and audio positions from the clips' seconds.

    Args:
        front_end: Of the model.
        prompt: Renders the questions.
        max_seconds: Longest clip allowed.
        augment: Of the clips, or None; slower speech takes more positions.
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
        """Give the usable views and their lengths.

        Args:
            views: To measure.
            bad: Is told of views whose clip is too long, whose header cannot be read, or that are over ``limit``.
            limit: Most positions of a view with its twin, or None.
            twins: Whether speech comes with its text twin.

        Raises:
            BadExampleError: If a view is bad and the policy is ``raise``.
        """
        tokens = self._text_tokens(views)
        beside = [0] * len(views)
        if twins:
            as_text = self._text_tokens([View(view.example, "text") for view in views])
            beside = [n if view.modality == "speech" else 0 for n, view in zip(as_text, views, strict=True)]
        kept, lengths = [], []
        for view, count, twin in zip(views, tokens, beside, strict=True):
            try:
                length = Length(count + (self._positions(view) if view.modality == "speech" else 0), twin)
                if limit is not None and sum(length) > limit:
                    detail = f"the example takes {sum(length)} positions; allowed: at most tokens_per_batch = {limit}"
                    raise BadExampleError("over the token budget", view.example.location, detail)
            except BadExampleError as error:
                bad.report(error)
                continue
            kept.append(view)
            lengths.append(length)
        return kept, lengths

    def _positions(self, view: View) -> int:
        seconds = clip_seconds(view.example)
        check_seconds(view.example, seconds, self.max_seconds)
        longest = max(seconds, min(seconds * self.growth, self.max_seconds))
        # One more: the seconds of a manifest are rounded.
        return max(self._fewest, math.ceil(longest * self.front_end.positions_per_second) + 1)

    def _text_tokens(self, views: Sequence[View]) -> list[int]:
        """Ids of prompt and answer of each view; one call of the tokenizer for all."""
        if not views:
            return []
        texts, fixed = [], []
        for example, modality in views:
            answer = self.prompt.answer_text(example.target)
            if example.plain:
                texts.append(example.target)
                fixed.append(len(self.prompt.plain("")))
            elif modality == "text":
                texts.append(self.prompt.render(example.question, example.system) + answer)
                fixed.append(1)  # prompt and answer are tokenized apart: up to one token more
            else:
                around = self.prompt.speech(example.system)
                texts.append(answer)
                fixed.append(len(around.before) + len(around.after))
        ids = self.front_end.tokenizer(texts, add_special_tokens=False)["input_ids"]
        return [more + len(row) for more, row in zip(fixed, ids, strict=True)]
