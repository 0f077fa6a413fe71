"""Questions as a caller has them, in any of their forms, made into examples."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch

from ..datamodules import AudioArray, Example
from ..datamodules.sources.example import Modality
from ..foundation.errors import UserError
from ..foundation.json_lines import require_text

Sound = str | Path | np.ndarray | torch.Tensor
"""The path of a sound file, or samples."""


def questions(
    text: str | Sequence[str] | None, audio: Sound | Sequence[Sound] | None, sampling_rate: int
) -> tuple[list[Example], Modality, str | None, bool]:
    """Makes examples of what is asked.

    Args:
        text: One or several written questions; with ``audio`` the instruction about the clips.
        audio: One or several clips.
        sampling_rate: Of samples, in Hz.

    Returns:
        The examples, their modality, the instruction (or None), and whether one was asked and not a list.

    Raises:
        UserError: If nothing is asked, a text is empty, or a clip is not there.
    """
    if audio is None:
        if text is None:
            raise UserError("nothing was asked; allowed: text, audio, or audio with a text that says what to do")
        written = [text] if isinstance(text, str) else list(text)
        return [_written(question, n) for n, question in enumerate(written)], "text", None, isinstance(text, str)
    if text is not None and not isinstance(text, str):
        raise UserError("ask: several texts with audio; allowed: one instruction for all clips")
    one = isinstance(audio, str | Path | np.ndarray | torch.Tensor)
    clips: list[Sound] = [audio] if one else list(audio)  # type: ignore[list-item, arg-type]
    return [_spoken(clip, n, sampling_rate) for n, clip in enumerate(clips)], "speech", text, one


def _written(question: str, number: int) -> Example:
    if not question.strip():
        raise UserError("ask: an empty text; allowed: a question")
    require_text(question, "ask")  # a terminal of another encoding gives halves of pairs
    return Example(f"text-{number}", question, ("-",), "-", location="text")


def _spoken(clip: Sound, number: int, sampling_rate: int) -> Example:
    if isinstance(clip, str | Path):
        path = Path(clip)
        if not path.is_file():
            raise UserError(f"{path} does not exist or is no file; allowed: a sound file")
        return Example(f"audio-{number}", "", ("-",), "-", path, location=str(path))
    samples = torch.as_tensor(clip)
    if samples.dim() not in (1, 2) or not samples.numel() or not samples.is_floating_point():
        raise UserError(
            f"samples of shape {tuple(samples.shape)}, {samples.dtype}; allowed: (n,) or (n, channels) floats"
        )
    return Example(f"audio-{number}", "", ("-",), "-", AudioArray(samples, sampling_rate), location=f"clip {number}")
