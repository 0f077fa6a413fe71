"""Pretrained models of transformers: their weights, or, to plan a run, their shapes alone."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any

import torch
from transformers import AutoConfig

_shapes_only: ContextVar[bool] = ContextVar("shapes_only", default=False)


def load_pretrained(kind: Any, source: str, dtype: torch.dtype, **options: Any) -> Any:
    """Returns a model with its weights; inside of :func:`shapes_only` one that its configuration describes.

    Args:
        kind: An Auto class of transformers.
        source: Folder or hub id.
        dtype: Of the weights.
        **options: Of ``from_pretrained``: loading options, and settings that take the place of the configuration's.

    Raises:
        ValueError: If weights are to be packed as they are read (``quantization_config``), and none are read.
    """
    if not _shapes_only.get():
        return kind.from_pretrained(source, dtype=dtype, **options)
    if "quantization_config" in options:
        raise ValueError(
            "weights in 4 bits are packed as they are read, so their memory cannot be told from the configuration; "
            "allowed: textkeep plan --run, which reads them, or a plan of LoRA without 4 bits"
        )
    return kind.from_config(AutoConfig.from_pretrained(source, **options), dtype=dtype)


def weights_are_read() -> bool:
    """Returns whether models have their pretrained weights, whose values may be asked for."""
    return not _shapes_only.get()


@contextmanager
def shapes_only() -> Iterator[None]:
    """Lets models be built from their configurations while it lasts, to plan a run: no weights are read."""
    token = _shapes_only.set(True)
    try:
        yield
    finally:
        _shapes_only.reset(token)


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
