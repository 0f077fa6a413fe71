"""Pretrained models of transformers: their weights, or their shapes alone: to plan a run, or where rank zero reads."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any

import torch
from transformers import AutoConfig

from ...foundation.ranks import Ranks

_shapes_only: ContextVar[bool] = ContextVar("shapes_only", default=False)
_read_elsewhere: ContextVar[bool] = ContextVar("read_elsewhere", default=False)


def load_pretrained(kind: Any, source: str, dtype: torch.dtype, **options: Any) -> Any:
    """Returns a model with its weights, or within :func:`shapes_only` one built from its configuration.

    Inside of :func:`read_by_rank_zero` the other ranks get the same model on the meta device: shapes, no values.

    Args:
        kind: An Auto class of transformers.
        source: Folder or hub id.
        dtype: Of the weights.
        **options: Of ``from_pretrained``: loading options, and settings that override the configuration's.

    Raises:
        ValueError: If weights are to be packed while reading (``quantization_config``), and none are read.
    """
    if _read_elsewhere.get():
        return kind.from_pretrained(source, dtype=dtype, device_map="meta", trust_remote_code=False, **options)
    if not _shapes_only.get():
        return kind.from_pretrained(source, dtype=dtype, trust_remote_code=False, **options)
    if "quantization_config" in options:
        raise ValueError(
            "weights in 4 bits are packed as they are read, so their memory cannot be told from the configuration; "
            "allowed: textkeep plan --run, which reads them, or a plan of LoRA without 4 bits"
        )
    return kind.from_config(AutoConfig.from_pretrained(source, trust_remote_code=False, **options), dtype=dtype)


def weights_are_read() -> bool:
    """Returns whether models have their pretrained weights, whose values may be asked for."""
    return not (_shapes_only.get() or _read_elsewhere.get())


@contextmanager
def shapes_only() -> Iterator[None]:
    """Builds models from their configurations within the context, to plan a run: no weights are read."""
    token = _shapes_only.set(True)
    try:
        yield
    finally:
        _shapes_only.reset(token)


@contextmanager
def read_by_rank_zero() -> Iterator[None]:
    """Lets rank zero alone read weights while it lasts; the other ranks build the same models without values."""
    token = _read_elsewhere.set(Ranks().rank > 0)
    try:
        yield
    finally:
        _read_elsewhere.reset(token)


@contextmanager
def reading_from(setting: str, source: str) -> Iterator[None]:
    """Adds the requested model to an error of ``from_pretrained``, which does not name it without a network.

    Args:
        setting: The setting that named it (``model.llm``).
        source: The hub id, path or asset.

    Raises:
        OSError: With both in its message.
    """
    try:
        yield
    except OSError as error:
        raise OSError(f"{setting}: '{source}' cannot be read: {error}") from error
