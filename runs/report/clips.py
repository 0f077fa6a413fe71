"""Clips of spoken questions, small enough to embed in the page."""

from __future__ import annotations

import base64
import io
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from ..run import Run

MAX_SECONDS = 20.0
BUDGET = 1_000_000
"""Maximum total bytes of base64 for all clips of a page."""

MIMES = {".ogg": "audio/ogg", ".mp3": "audio/mpeg"}


class Clips:
    """Finds the clips of items in the sources that the runs' configs name.

    Sources that are more than a name or a manifest's path, and clips that are not files, are left out: a report must
    not depend on the data set.
    """

    def __init__(self) -> None:
        self._left = BUDGET
        self._packed: dict[Path, str | None] = {}

    def of(self, run: Run, stage: str, ids: Iterable[str]) -> dict[str, str]:
        """Returns the ``data:`` URI of each item's clip, as long as the budget lasts.

        Args:
            run: The run whose config names the source.
            stage: ``val`` or ``test``.
            ids: Items, the most interesting first.
        """
        paths = _paths((run.config.get("data") or {}).get(stage))
        found = {}
        for identity in ids:
            if (path := paths.get(identity)) is None:
                continue
            if path not in self._packed:
                self._packed[path] = self._pack(path)
            packed = self._packed[path]
            if packed and len(packed) <= self._left:  # if shown for a second run, it is in the page twice
                self._left -= len(packed)
                found[identity] = packed
        return found

    def _pack(self, path: Path) -> str | None:
        """Returns the clip as ``data:`` URI; None if it is long or cannot be read."""
        import soundfile

        try:
            if soundfile.info(path).duration > MAX_SECONDS:
                return None
            data, mime = path.read_bytes(), MIMES.get(path.suffix.lower())
            if mime is None:
                data, mime = _as_ogg(path), "audio/ogg"
        except (OSError, RuntimeError):
            return None
        return f"data:{mime};base64,{base64.b64encode(data).decode()}"


def _as_ogg(path: Path) -> bytes:
    """Returns a clip in another format, compressed to a tenth of a WAV file's size."""
    import soundfile

    samples, rate = soundfile.read(path, dtype="float32")
    packed = io.BytesIO()
    soundfile.write(packed, samples, rate, format="OGG", subtype="VORBIS")
    return packed.getvalue()


def _paths(sources: Any) -> dict[str, Path]:
    """Finds the file of the clip of each item, from manifests and splits of the embedded set."""
    from ...datamodules.sources.bad_examples import BadExamples
    from ...datamodules.sources.named import read_sources

    found: dict[str, Path] = {}
    for source in sources if isinstance(sources, list) else [sources]:
        if not isinstance(source, str):
            continue
        try:
            examples = read_sources(source, BadExamples("skip"))
        except (OSError, ValueError):
            continue
        found |= {example.id: example.audio for example in examples if isinstance(example.audio, Path)}
    return found
