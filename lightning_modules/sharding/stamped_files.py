"""Safetensors files that say which save they belong to; ``torch.distributed.checkpoint`` has no option for it."""

from __future__ import annotations

import io
import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from torch.distributed.checkpoint.filesystem import FileSystem
from typing_extensions import override

from ...foundation.shard_files import SAVE

LENGTH = 8
"""Bytes before a header, which hold its length (little-endian); tensors begin at a multiple of them."""


class StampedFiles(FileSystem):
    """A file system that adds an id to the header of each safetensors file.

    Args:
        save: Id of the save.
    """

    def __init__(self, save: str) -> None:
        self._save = save

    @contextmanager
    @override
    def create_stream(self, path: Any, mode: str) -> Iterator[Any]:
        """Opens a file, into which a safetensors file is written with one call."""
        with _Stamping(path, self._save) if "w" in mode else Path(path).open(mode) as stream:
            yield stream


class _Stamping(io.BufferedWriter):
    """The stream of one file."""

    def __init__(self, path: Path, save: str) -> None:
        super().__init__(io.FileIO(path, "w"))
        self._save = save

    @override
    def write(self, file: Any) -> int:
        """Writes a safetensors file with the id in its header; its tensors are not copied."""
        tensors = LENGTH + int.from_bytes(file[:LENGTH], "little")
        header = json.loads(file[LENGTH:tensors])
        header["__metadata__"][SAVE] = self._save
        text = json.dumps(header, separators=(",", ":")).encode()
        text += b" " * (-len(text) % LENGTH)
        super().write(len(text).to_bytes(LENGTH, "little") + text)
        super().write(memoryview(file)[tensors:])
        return len(file)
