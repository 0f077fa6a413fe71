"""Errors of pretrained weights that cannot be read, in the words of the config."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def reading_from(setting: str, source: str) -> Iterator[None]:
    """Adds what was asked for to an error of ``from_pretrained``, which does not say it without a network.

    Args:
        setting: Where it was asked for (``model.llm``).
        source: The hub id, path or asset.

    Raises:
        OSError: With both in its message.
    """
    try:
        yield
    except OSError as error:
        raise OSError(f"{setting}: '{source}' cannot be read: {error}") from error
