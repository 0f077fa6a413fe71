"""The processor that an audio LLM brings: what it makes of clips, and how many positions they take."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import torch
from torch import Tensor
from transformers import AutoProcessor, PreTrainedTokenizerBase

from ..llm.remote_code import read_remote_processor
from ..precision import default_dtype
from .front_end import FrontEnd

_TEXT = "\u241eTEXT\u241e"
"""Stands for the user's text: no template finds anything in it to change."""
_SHORT, _LONG = 0.1, (2.0, 5.0, 11.0, 30.0)
"""Seconds of the clips by which positions are estimated."""
_END = 0.1
"""Seconds at the end of a clip by which it is told whether all of it is heard."""
_OF_TEXT = ("input_ids", "attention_mask", "token_type_ids", "labels", "mm_token_type_ids")


class AudioProcessor:
    """Turns clips into what an audio LLM takes, with the processor that came with it; picklable, without weights.

    Args:
        source: Hub id or folder.
        remote: Whether it may come with code of its own, which is then run.

    Raises:
        ImportError: If it needs a package that is not installed.
        OSError: If it cannot be read.
        ValueError: If it is none that takes text and sound, or comes with code of its own.

    Attributes:
        processor: As transformers has it.
        tokenizer: Its tokenizer, with the processor's chat template if it has one.
        sampling_rate: Of the waveforms it expects, in Hz.
    """

    def __init__(self, source: str, remote: bool = False) -> None:
        self.processor: Any = (
            read_remote_processor(source) if remote else AutoProcessor.from_pretrained(source, trust_remote_code=False)
        )
        tokenizer, self._token = (getattr(self.processor, name, None) for name in ("tokenizer", "audio_token"))
        if not isinstance(tokenizer, PreTrainedTokenizerBase) or self._token is None:
            raise ValueError(f"its processor, a {type(self.processor).__name__}, is none of text and sound")
        self.tokenizer = tokenizer
        if template := getattr(self.processor, "chat_template", None):
            self.tokenizer.chat_template = template
        parts = [getattr(self.processor, name, None) for name in ("feature_extractor", "audio_processor")]
        self.sampling_rate = next((int(rate) for part in parts if (rate := getattr(part, "sampling_rate", 0))), 16000)
        self._heard_whole = 0

    @property
    def audio_id(self) -> int:
        """The token that the processor repeats, once per position."""
        number: Any = self.tokenizer.convert_tokens_to_ids(str(self._token))
        return int(number)

    def listen(self, waveforms: Sequence[Tensor]) -> tuple[dict[str, Tensor], list[int]]:
        """Turns waveforms (samples,) into the processor's tensors, and counts the positions of each clip.

        Raises:
            ValueError: If a clip does not take one run of positions.
        """
        found = self._processed(str(self._token), waveforms)
        ids = found["input_ids"]
        counts = [len(_run(row, self.audio_id)) for row in ids.tolist()]
        return {name: value for name, value in found.items() if name not in _OF_TEXT}, counts

    def count(self, samples: int) -> int:
        """Counts the positions that a clip of so many samples takes."""
        return self.listen([torch.zeros(samples)])[1][0]

    def hears_all(self, samples: int) -> bool:
        """Tells whether a clip of so many samples is heard to its end: some processors cut it at their window."""
        if samples > self._heard_whole:
            noise = 0.1 * torch.randn(samples, generator=torch.Generator().manual_seed(0))
            other = noise.clone()
            other[-int(_END * self.sampling_rate) :] *= -0.5
            (first, _), (second, _) = self.listen([noise]), self.listen([other])
            if all(torch.equal(value, second[name]) for name, value in first.items()):
                return False
            self._heard_whole = samples
        return True

    @cached_property
    def positions_per_second(self) -> float:
        """The most positions that a second of speech takes, for clips of two seconds or more."""
        fewest = self.count(int(_SHORT * self.sampling_rate))
        counts = {seconds: self.count(int(seconds * self.sampling_rate)) for seconds in _LONG}
        # Where a clip is padded to a window, short ones take as many as long ones: the shortest then sets the least.
        rates = [count / seconds for seconds, count in counts.items() if count > fewest]
        return max(rates, default=counts[_LONG[-1]] / _LONG[-1])

    @cached_property
    def around(self) -> tuple[str, str]:
        """What stands before and after the positions of a clip in the user's turn, in the words of its chat template.

        Raises:
            ValueError: If it does not put a clip before the text.
        """
        before, after = self._of_template()
        ids = self._processed(f"{before}{self._token}{after}", [torch.zeros(self.sampling_rate)])["input_ids"][0]
        heard = ids.tolist()
        run = _run(heard, self.audio_id)
        known = [self.tokenizer(text, add_special_tokens=False)["input_ids"] for text in (before, after)]
        left, right = heard[: run.start], heard[run.stop :]
        if left[: len(known[0])] != known[0] or right[len(right) - len(known[1]) :] != known[1]:
            raise ValueError("its processor changes the text around a clip")
        # A processor may write more around the positions (Music Flamingo their beginning and end).
        more = left[len(known[0]) :], right[: len(right) - len(known[1])]
        return f"{before}{self.tokenizer.decode(more[0])}", f"{self.tokenizer.decode(more[1])}{after}"

    def _of_template(self) -> tuple[str, str]:
        """Finds what the chat template writes around a clip; nothing, if it knows no clips."""
        from jinja2 import TemplateError

        clip, text = {"type": "audio", "audio": "clip.wav"}, {"type": "text", "text": _TEXT}
        try:
            spoken, *written = [self._rendered(content) for content in ([clip, text], _TEXT, [text])]
        except (TemplateError, TypeError):
            return "", ""
        for plain in written:
            head, found, tail = plain.partition(_TEXT)
            inside = spoken[len(head) : len(spoken) - len(tail)].removesuffix(_TEXT)
            if found and spoken == f"{head}{inside}{_TEXT}{tail}" and inside.count(str(self._token)) == 1:
                before, _, after = inside.partition(str(self._token))
                return before, after
        return "", ""

    def _rendered(self, content: Any) -> str:
        return str(self.tokenizer.apply_chat_template([{"role": "user", "content": content}], tokenize=False))

    def _processed(self, text: str, waveforms: Sequence[Tensor]) -> dict[str, Tensor]:
        """Lets the processor work on clips, each with the same text."""
        clips = [waveform.numpy() for waveform in waveforms]
        # The run's precision may be the default type, which no extractor can work in.
        with default_dtype(torch.float32), torch.device("cpu"):
            found = self.processor(
                text=[text] * len(clips),
                audio=clips,
                text_kwargs={"padding": True, "add_special_tokens": False},
                audio_kwargs={"sampling_rate": self.sampling_rate},
                return_tensors="pt",
            )
        return {name: value for name, value in found.items() if isinstance(value, Tensor)}


@dataclass(frozen=True)
class ProcessorFrontEnd(FrontEnd):
    """The front end of an audio LLM: its own processor hears the clips of a batch, in the worker that makes it.

    Attributes:
        around: What its chat template writes before and after the positions of a clip.
        audio_id: Token that stands for a position of sound.
        processor: Hears.
    """

    around: tuple[str, str] = ("", "")
    audio_id: int = -1
    processor: AudioProcessor | None = field(default=None, repr=False, compare=False)

    def listen(self, waveforms: Sequence[Tensor]) -> tuple[dict[str, Tensor], list[int]]:
        """Turns waveforms (samples,) into the processor's tensors, and counts the positions of each clip."""
        assert self.processor is not None
        return self.processor.listen(waveforms)

    def hears_all(self, samples: int) -> bool:
        """Tells whether a clip of so many samples is heard to its end."""
        assert self.processor is not None
        return self.processor.hears_all(samples)

    @property
    def fingerprint(self) -> str:
        """Names nothing: there are no frames to be kept.

        Raises:
            ValueError: Always.
        """
        raise ValueError(
            "data.feature_cache keeps the frames of model.encoder, which an audio LLM's own ear does not give; "
            "allowed: data.feature_cache: null"
        )

    @classmethod
    def of_processor(
        cls, processor: AudioProcessor, tokenizer: PreTrainedTokenizerBase, text_twins: bool, vocabulary: int | None
    ) -> ProcessorFrontEnd:
        """Makes the front end of an audio LLM; needs no weights."""
        return cls(
            tokenizer=tokenizer,
            sampling_rate=processor.sampling_rate,
            feature_dim=1,
            positions_per_second=processor.positions_per_second,
            extract=_as_it_is,
            num_positions=processor.count,
            text_twins=text_twins,
            vocabulary=vocabulary,
            around=processor.around,
            audio_id=processor.audio_id,
            processor=processor,
        )


def _as_it_is(waveform: Tensor) -> Tensor:
    """Returns a waveform (samples,) as features (1, samples): the processor hears all clips of a batch at once."""
    return waveform[None]


def _run(ids: Sequence[int], token: int) -> range:
    """Finds where a token is repeated.

    Raises:
        ValueError: If it is not there, or something stands between.
    """
    places = [place for place, found in enumerate(ids) if found == token]
    if not places:
        raise ValueError("model.ear: the processor gave a clip no position")
    run = range(places[0], places[-1] + 1)
    if len(run) != len(places):
        raise ValueError("model.ear: the processor puts other tokens between the positions of a clip: not supported")
    return run
