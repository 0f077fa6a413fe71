"""Errors of pretrained weights that cannot be read, in the words of the config."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def reading(setting: str, source: str) -> Iterator[None]:
    """Names what is read in an error of ``from_pretrained``, which without a network does not say what was asked for.

    Args:
        setting: Where it was asked for (``model.llm``).
        source: The hub id, path or asset.

    Raises:
        OSError: With both.
    """
    try:
        yield
    except OSError as error:
        raise OSError(f"{setting}: '{source}' cannot be read: {error}") from error
