"""What a speech engine is, and which ones there are."""

from __future__ import annotations

from collections.abc import Iterable
from importlib import import_module
from typing import NamedTuple, Protocol

from .waveform import Waveform


class SpeechEngine(Protocol):
    """Something that says a text. Making one is cheap: models and libraries load at the first text."""

    name: str
    """Name on the command line, before the colon of a voice."""

    @property
    def voices(self) -> tuple[str, ...]:
        """Names of the voices that it has."""
        ...

    def synthesize(self, text: str, voice: str, *, rate: float = 1.0, pitch: float = 1.0) -> tuple[Waveform, int]:
        """Says a text.

        Args:
            text: Plain English text.
            voice: One of ``voices``.
            rate: Speed relative to the voice's own.
            pitch: Mean pitch relative to the voice's own; a voice whose pitch is fixed ignores it.

        Returns:
            Samples in [-1, 1] of shape (samples,), and samples per second.
        """
        ...


class Voice(NamedTuple):
    """A voice of an engine, written ``engine:name``."""

    engine: str
    name: str

    def __str__(self) -> str:
        return f"{self.engine}:{self.name}"


ENGINES = {"flite": ".flite:FliteEngine", "kokoro": ".kokoro:KokoroEngine"}
"""Where each engine's class lies: imported when a voice of it is asked for."""


def make_engine(name: str) -> SpeechEngine:
    """Makes an engine by its name.

    Raises:
        ValueError: If there is none of this name.
        FileNotFoundError: If its asset was not fetched.
    """
    if name not in ENGINES:
        raise ValueError(f"speak: unknown engine {name!r}; allowed: {', '.join(ENGINES)}")
    module, attribute = ENGINES[name].split(":")
    engine: SpeechEngine = getattr(import_module(module, package=__package__), attribute)()
    return engine


def parse_voices(texts: Iterable[str]) -> tuple[Voice, ...]:
    """Reads voices as they stand on the command line, and checks that the engines have them.

    Args:
        texts: Items such as ``flite:slt``.

    Raises:
        ValueError: If one is unknown or malformed; the message lists what is allowed.
    """
    voices = []
    engines: dict[str, SpeechEngine] = {}
    for text in texts:
        engine, colon, name = text.partition(":")
        if not colon:
            raise ValueError(f"speak: voice {text!r} must be written engine:name, for example flite:slt")
        engines.setdefault(engine, make_engine(engine))
        known = engines[engine].voices
        if name not in known:
            raise ValueError(f"speak: {engine} has no voice {name!r}; allowed: {', '.join(known)}")
        voices.append(Voice(engine, name))
    return tuple(dict.fromkeys(voices))
