"""Batches for a small SpeechLLM, made as a run makes them: by the model's front end and the collator."""

from __future__ import annotations

from collections.abc import Collection, Sequence

import torch

from textkeep.datamodules import AudioArray, Batch, ChatPrompt, Collator, Example, RowReader, View
from textkeep.datamodules.batches.front_end import words_around
from textkeep.lightning_modules import SpeechLLM

_DIGITS = "123456789"


def make_batch(
    model: SpeechLLM,
    clips: Sequence[int | None],
    left: bool = False,
    twins: bool = False,
    unwritten: Collection[int] = (),
) -> Batch:
    """Makes a batch of questions; row i asks and answers with i + 1 digits, each a token, and then ``?`` or the end.

    Args:
        model: Its front end reads the clips; its tokenizer writes the prompts.
        clips: Length of each row's clip of noise in hundredths of a second (Whisper's frames); None for a text row.
        left: Make left-padded prompts to generate from, without the answers.
        twins: Let the batch bring its text twins.
        unwritten: Rows whose question is not known as text.
    """
    front_end = model.front_end
    reader = RowReader(front_end)
    prompt = ChatPrompt(front_end.tokenizer, around=words_around(front_end))
    collator = Collator(front_end, prompt, answers=not left, twins=twins)
    views = [_view(index, clip, front_end.sampling_rate, index in unwritten) for index, clip in enumerate(clips)]
    return collator([reader.read(view) for view in views])


def _view(index: int, clip: int | None, rate: int, unwritten: bool) -> View:
    question = "" if unwritten else f"{_DIGITS[: index + 1]}?"
    answer = _DIGITS[::-1][: index + 1]
    audio = None
    if clip is not None:
        noise = torch.randn(clip * rate // 100, generator=torch.Generator().manual_seed(index))
        audio = AudioArray(0.1 * noise, rate)
    return View(Example(str(index), question, (answer,), answer, audio), "text" if clip is None else "speech")
