"""Rows to a padded batch."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from ..sources.bad_examples import BadExampleError
from ..sources.example import Example
from .batch import IGNORE_INDEX, Batch, Examples
from .chat_template import refusals_at
from .embedded_ids import check_embedded
from .front_end import ProcessingFrontEnd, SpeechFrontEnd
from .prompts import ChatPrompt
from .rows import Row


@dataclass
class _Tokens:
    """A row's ids, labels and audio positions, all (T,), and whether its answer begins where its prompt alone ends."""

    ids: Tensor
    labels: Tensor
    audio: Tensor
    continues: bool


class Collator:
    """Makes a ``Batch`` of rows: right padded with answers, or left padded prompts to generate from.

    Args:
        front_end: The model's tokenizer and width of features.
        prompt: Renders the questions.
        answers: False leaves the answers out; a prompt then ends with the generation prompt.
        encoded: Whether the rows' features are outputs of the frozen encoder.
        twins: Whether batches of speech come with their text twins.
        plain_tokens: Plain text is cut after this many; None leaves it whole.
    """

    def __init__(
        self,
        front_end: SpeechFrontEnd,
        prompt: ChatPrompt,
        answers: bool = True,
        encoded: bool = False,
        twins: bool = False,
        plain_tokens: int | None = None,
    ) -> None:
        tokenizer = front_end.tokenizer
        pad = tokenizer.pad_token_id if tokenizer.pad_token_id is not None else tokenizer.eos_token_id
        self.pad_id = int(pad or 0)
        self.front_end = front_end
        self.feature_dim = front_end.feature_dim
        self.prompt = prompt
        self.answers = answers
        self.encoded = encoded
        self.twins = twins
        self.plain_tokens = plain_tokens

    def __call__(self, rows: Sequence[Row], skipped: Sequence[BadExampleError] = ()) -> Batch:
        """Pads and stacks the rows.

        Args:
            rows: At least one.
            skipped: Why examples were left out while the rows were read.

        Raises:
            BadExampleError: If the chat template refuses a row (one with a system prompt, where it takes none), or the
                LLM has no embedding for one of its tokens.
        """
        rows, inputs = self._listened(rows)
        tokens = [self._tokens(row) for row in rows]
        spoken = [row for row in rows if row.features is not None]
        features, lengths = self._features(spoken)
        ones = [torch.ones_like(row.ids) for row in tokens]
        return Batch(
            input_ids=self._pad([row.ids for row in tokens], self.pad_id),
            attention_mask=self._pad(ones, 0),
            labels=self._pad([row.labels for row in tokens], IGNORE_INDEX),
            audio_mask=self._pad([row.audio for row in tokens], False),
            features=features,
            feature_lengths=lengths,
            transcripts=self._transcripts(spoken),
            ids=[row.example.id for row in rows],
            modality=[row.modality for row in rows],
            examples=Examples(_light(row.example) for row in rows),
            encoded=self.encoded,
            twin=self._twin(rows) if self.twins and spoken else None,
            skipped=list(skipped),
            end_id=self.prompt.end_id,
            continues=all(row.continues for row in tokens),
            inputs=inputs,
        )

    def _listened(self, rows: Sequence[Row]) -> tuple[Sequence[Row], dict[str, Tensor]]:
        """Lets a processor hear the clips, if the model brings one: its tensors, and rows that know their positions."""
        heard = [row.features[0] for row in rows if row.features is not None]
        if not heard or not isinstance(self.front_end, ProcessingFrontEnd):
            return rows, {}
        inputs, counts = self.front_end.listen(heard)
        left = iter(counts)
        empty = torch.zeros(self.feature_dim, 0)
        known = [row if row.features is None else replace(row, features=empty, positions=next(left)) for row in rows]
        return known, inputs

    def _twin(self, rows: Sequence[Row]) -> Batch:
        """Makes the rows' text twin; every rank makes one of every batch with speech, so all run the same passes."""
        twin = self([Row(row.example, "text") for row in rows])
        without = torch.tensor([not row.example.has("text") for row in rows])
        twin.labels[without] = IGNORE_INDEX
        return twin

    def _tokens(self, row: Row) -> _Tokens:
        example = row.example
        if example.plain:
            plain = self.prompt.plain(example.target)[: self.plain_tokens]
            check_embedded(plain, self.front_end, example.location)
            ids = torch.tensor(plain)
            labels = ids.clone()
            labels[:1] = IGNORE_INDEX  # nothing stands before it
            return _Tokens(ids, labels, torch.zeros(len(ids), dtype=torch.bool), False)
        target, before = (example.target if self.answers else None), []
        with refusals_at(example.location):
            if row.modality == "speech":
                before = self.prompt.speech(example.system).before
                found = self.prompt.spoken_conversation(target, example.system)
            else:
                found = self.prompt.conversation(example.question, target, example.system)
        check_embedded(found.ids, self.front_end, example.location)
        start, shift = len(before), len(before) + row.positions
        ids = torch.tensor([*before, *[self.pad_id] * row.positions, *found.ids])
        labels = ids.clone()
        labels[: shift + found.answer] = IGNORE_INDEX
        audio = torch.zeros(len(ids), dtype=torch.bool)
        audio[start:shift] = True
        return _Tokens(ids, labels, audio, self.answers and found.continues)

    def _pad(self, values: list[Tensor], fill: float) -> Tensor:
        side = "right" if self.answers else "left"
        return pad_sequence(values, batch_first=True, padding_value=fill, padding_side=side)

    def _features(self, rows: list[Row]) -> tuple[Tensor, Tensor]:
        """Pads the clips' features with zeros, (N, C, F), and gives their true lengths, (N,)."""
        clips = [row.features for row in rows if row.features is not None]
        if not clips:
            return torch.zeros(0, self.feature_dim, 0), torch.zeros(0, dtype=torch.int64)
        lengths = torch.tensor([clip.shape[-1] for clip in clips])
        padded = torch.zeros(len(clips), clips[0].shape[0], int(lengths.max()))
        for index, clip in enumerate(clips):
            padded[index, :, : clip.shape[-1]] = clip
        return padded, lengths

    def _transcripts(self, rows: list[Row]) -> Tensor:
        """Returns the ids of the clips' question text, (N, S), padded with -100."""
        if not rows:
            return torch.zeros(0, 0, dtype=torch.int64)
        ids = [torch.tensor(self.prompt.transcript(row.example.question), dtype=torch.int64) for row in rows]
        return pad_sequence(ids, batch_first=True, padding_value=IGNORE_INDEX)


def _light(example: Example) -> Example:
    """Drops samples that the example holds in memory: batches travel between processes."""
    return example if example.audio is None or isinstance(example.audio, Path) else replace(example, audio=None)
