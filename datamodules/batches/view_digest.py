"""A digest of what a run trains on: a continued run notices if its examples have changed."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from pathlib import Path

from .rows import View

_BETWEEN, _END = "\x1f", "\x1e"


def view_digest(views: Sequence[View]) -> str:
    """Takes a digest of what is learned and asked, in its order; a second for a million lines.

    Clips count by their names, not by their samples: those are read only when they are needed. Where a file lies, and
    when it was written, does not count.
    """
    digest = hashlib.blake2b(digest_size=16)
    for example, modality in views:
        clip = example.audio.name if isinstance(example.audio, Path) else ""
        plain = "plain" if example.plain else ""
        said = (modality, example.id, example.question, example.target, example.system or "", clip, plain)
        digest.update((_BETWEEN.join((*said, *example.answers)) + _END).encode("utf-8", "surrogatepass"))
    return digest.hexdigest()
