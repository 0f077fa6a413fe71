"""Who says what: voices, speed and pitch by a hash of the id, so that a rerun makes the same data."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from .engine import Voice


@dataclass(frozen=True)
class Cast:
    """The speakers.

    Attributes:
        voices: Speakers of training lines (and of all lines where none is held out).
        heldout: Speakers of the lines for validation and test, and of no other.
        jitter: Largest relative change of speed and of pitch.
        heldout_ids: Ids of the lines for validation and test.
    """

    voices: tuple[Voice, ...]
    heldout: tuple[Voice, ...] = ()
    jitter: float = 0.0
    heldout_ids: frozenset[str] = frozenset()

    def __post_init__(self) -> None:
        """Refuses what would make the test unfair.

        Raises:
            ValueError: If no voice is left, a held-out voice is used for training, or the jitter is out of range.
        """
        both = set(self.voices) & set(self.heldout)
        if both:
            raise ValueError(
                f"speak: --heldout-voices must not be in --voices too: {', '.join(sorted(map(str, both)))}"
            )
        if not self.voices:
            raise ValueError("speak: --voices is empty")
        if not 0 <= self.jitter < 0.5:
            raise ValueError(f"speak: --jitter must be at least 0 and below 0.5, got {self.jitter}")


@dataclass(frozen=True)
class Job:
    """One clip to make.

    Attributes:
        id: Id of the line.
        text: What to say.
        voice: Who says it.
        rate: Relative speed.
        pitch: Relative pitch.
        clip: Path of the clip relative to the output folder.
    """

    id: str
    text: str
    voice: Voice
    rate: float
    pitch: float
    clip: str


def fraction(key: str) -> float:
    """Draws a number in [0, 1) that depends on the text alone."""
    return int.from_bytes(hashlib.sha256(key.encode()).digest()[:8], "big") / 2**64


def voice_text(row: Mapping[str, Any]) -> str:
    """Returns what a voice should say for a line: its ``spoken`` text or its question, without quotes and brackets."""
    text = str(row.get("spoken") or row["question"])
    text = text.replace("&", " and ").replace("%", " percent").replace('"', "")
    return re.sub(r"\s+", " ", re.sub(r"[\[\](){}<>_*#]", " ", text)).strip()


def plan(row: Mapping[str, Any], cast: Cast, suffix: str, attempt: int = 0) -> Job:
    """Plans the clip of one line.

    Args:
        row: Line of the text manifest.
        cast: The speakers.
        suffix: File name extension, such as ``ogg``.
        attempt: 0 for the first voice, 1 for another one, and so on.
    """
    key = str(row["id"])
    pool = cast.heldout if cast.heldout and key in cast.heldout_ids else cast.voices
    voice = pool[(int(fraction(f"voice {key}") * len(pool)) + attempt) % len(pool)]
    rate = round(1 + cast.jitter * (2 * fraction(f"rate {key}") - 1), 3)
    pitch = round(1 + cast.jitter * (2 * fraction(f"pitch {key}") - 1), 3)
    text = voice_text(row)
    # The name changes with whatever changes the sound: an old clip is never taken for a new one.
    recipe = json.dumps([text, str(voice), rate, pitch])
    # Ids of another script lose all their letters here, and the digest alone must tell 100,000 of them apart.
    digest = hashlib.sha256(recipe.encode()).hexdigest()[: 8 if key.isascii() else 16]
    stem = re.sub(r"[^A-Za-z0-9_.-]+", "-", key)
    return Job(key, text, voice, rate, pitch, f"clips/{stem}-{digest}.{suffix}")
