"""Draws that depend on the text alone."""

from __future__ import annotations

import hashlib


def stable_hash(text: str) -> int:
    """Draws a number that depends on the text alone, on every machine."""
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "big")
