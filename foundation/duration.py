"""Durations for display in a terminal."""

from __future__ import annotations


def duration(seconds: float) -> str:
    """Formats a number of seconds as ``h:mm:ss``, or ``m:ss`` below an hour."""
    minutes, left = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{left:02d}" if hours else f"{minutes}:{left:02d}"
