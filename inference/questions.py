"""Turns questions in any form into examples."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch

from ..datamodules import AudioArray, Example
from ..datamodules.sources.example import Modality
from ..foundation.errors import UserError
from ..foundation.json_lines import require_text

Sound = str | Path | np.ndarray | torch.Tensor
"""The path of a sound file, or samples."""
Sounds = list[Sound] | list[str] | list[Path] | list[np.ndarray] | list[torch.Tensor] | tuple[Sound, ...]
Texts = list[str] | tuple[str, ...]


class Asked(NamedTuple):
    """Questions, in a form that can be batched."""

    examples: list[Example]
    modality: Modality
    alone: bool
    """Whether it was one question rather than a list."""
    instruction: dict[str, str]
    """The setting that an instruction about the clips replaces, if any."""


def questions(text: str | Texts | None, audio: Sound | Sounds | None, sampling_rate: int) -> Asked:
    """Turns questions into examples.

    Args:
        text: One or several written questions; with ``audio`` the instruction about the clips.
        audio: One or several clips.
        sampling_rate: Of samples, in Hz.

    Raises:
        UserError: If nothing is asked, a text is empty, or a clip does not exist.
    """
    if audio is None:
        if text is None:
            raise UserError("nothing was asked; allowed: text, audio, or audio with a text that says what to do")
        written = [text] if isinstance(text, str) else list(text)
        return Asked([_written(question, n) for n, question in enumerate(written)], "text", isinstance(text, str), {})
    if text is not None and not isinstance(text, str):
        raise UserError("ask: several texts with audio; allowed: one instruction for all clips")
    instruction = {} if text is None else {"speech_instruction": text}
    if isinstance(audio, str | Path | np.ndarray | torch.Tensor):
        return Asked([_spoken(audio, 0, sampling_rate)], "speech", True, instruction)
    return Asked([_spoken(clip, n, sampling_rate) for n, clip in enumerate(audio)], "speech", False, instruction)


def _written(question: str, number: int) -> Example:
    if not question.strip():
        raise UserError("ask: an empty text; allowed: a question")
    require_text(question, "ask")  # a terminal with another encoding yields lone surrogates
    return Example(f"text-{number}", question, ("-",), "-", location="text")


def _spoken(clip: Sound, number: int, sampling_rate: int) -> Example:
    if isinstance(clip, str | Path):
        path = Path(clip)
        if not path.is_file():
            raise UserError(f"{path} does not exist or is not a file; allowed: a sound file")
        return Example(f"audio-{number}", "", ("-",), "-", path, location=str(path))
    try:
        samples = torch.as_tensor(clip).detach().cpu()
    except (TypeError, ValueError) as error:
        raise UserError(f"clip {number} is not a sound ({error}); allowed: a path, or an array of samples") from error
    return Example(f"audio-{number}", "", ("-",), "-", AudioArray(samples, sampling_rate), location=f"clip {number}")
