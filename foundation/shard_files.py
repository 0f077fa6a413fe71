"""The files of a sharded checkpoint: which belong together, and whether all of them are there."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from math import prod
from pathlib import Path
from typing import Any

from .errors import UserError
from .files import sync

REST = "rest.ckpt"
"""Whatever of Lightning's checkpoint is not divided among ranks, as ``torch.save`` writes it."""
LISTING = "files.json"
"""What the other files are; see :class:`Listing`."""
SAVE = "textkeep_save"
"""Key in the metadata of a shard: the id of the save that it belongs to."""
SHARDS = "*.safetensors"


@dataclass(frozen=True)
class Listing:
    """What a checkpoint consists of.

    Files of two checkpoints are alike in names and sizes; what ties them together are an id and a digest.

    Args:
        save: Random id of the save, which each shard has in its header.
        rest: SHA-256 of ``rest.ckpt``, in hex; it is small.
        shards: Name of each safetensors file -> its size in bytes.
        tensors: Name of each tensor in them -> its shape as a whole.
    """

    save: str
    rest: str
    shards: dict[str, int]
    tensors: dict[str, list[int]]


def write_listing(folder: Path, save: str, tensors: Mapping[str, tuple[int, ...]]) -> None:
    """Writes down which files a checkpoint has; the last thing before it gets its name.

    Args:
        folder: Holds all other files.
        save: Id of the save, which the shards have in their headers.
        tensors: Names and whole shapes of the tensors that are divided.
    """
    shards = {file.name: file.stat().st_size for file in sorted(folder.glob(SHARDS))}
    shapes = {name: list(shape) for name, shape in tensors.items()}
    listing = Listing(save, _digest(folder / REST), shards, shapes)
    (folder / LISTING).write_text(json.dumps(asdict(listing), indent=1))
    sync(folder / LISTING)


def fault(folder: Path) -> str | None:
    """Says which file of a sharded checkpoint is not as it was written, or None if all are.

    Of the shards only headers are read.

    Args:
        folder: The checkpoint.
    """
    try:
        listing = Listing(**json.loads((folder / LISTING).read_text(encoding="utf-8")))
    except OSError:
        return f"{LISTING} in it is not there"
    except (ValueError, TypeError):
        return f"{LISTING} in it does not list its files"
    if not all(isinstance(part, dict) for part in (listing.shards, listing.tensors)):
        return f"{LISTING} in it does not list its files"
    return _odd_file(folder, listing) or _odd_tensor(folder, listing)


def check_whole(folder: Path) -> None:
    """Refuses a sharded checkpoint that is not as it was written.

    Args:
        folder: The checkpoint.

    Raises:
        UserError: If a file is missing, cut short or of another checkpoint.
    """
    if (problem := fault(folder)) is not None:
        raise UserError(f"{folder.resolve()} is damaged ({problem})")


def _odd_file(folder: Path, listing: Listing) -> str | None:
    missing = [name for name, size in listing.shards.items() if not _has_size(folder / name, size)]
    if missing or not (folder / REST).is_file():
        return f"{[*missing, REST][0]} in it is not there, or cut short"
    if _digest(folder / REST) != listing.rest:
        return f"{REST} in it is not the one that was written, or cut short"
    for file in sorted(folder.glob(SHARDS)):
        if file.name not in listing.shards or _save_of(file) != listing.save:
            return f"{file.name} in it is damaged, or of another checkpoint"
    return None


def _odd_tensor(folder: Path, listing: Listing) -> str | None:
    from torch.distributed.checkpoint import HuggingFaceStorageReader

    found: Any = HuggingFaceStorageReader(str(folder)).read_metadata().state_dict_metadata
    for name, shape in listing.tensors.items():
        whole = name in found and list(found[name].size) == shape
        if not whole or sum(chunk.sizes.numel() for chunk in found[name].chunks) != prod(shape):
            return f"no shard in it holds all of {name}"
    return None


def _has_size(path: Path, size: int) -> bool:
    return path.is_file() and path.stat().st_size == size


def _digest(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _save_of(shard: Path) -> str | None:
    """Returns the id of the save in a shard's header; None if it has none, or is no safetensors file."""
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(shard, framework="pt") as file:
            return (file.metadata() or {}).get(SAVE)
    except (SafetensorError, OSError):
        return None
